"""The JobSet manifests: as the API describes a JobSet, and figures and names that agree with each other.

The description is the one that JobSet's Go types and Kubernetes' own generate, which also makes the CRD, as Kubeflow
hands it on.
"""

from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet as JobSet

from sface_jax.core import errors

LAUNCH = Path(__file__).parents[2] / "launch"


def lost(value: object, known: object, path: str = "") -> list[str]:
    """What in a manifest the API does not take over; defaults that it adds do not matter."""
    if isinstance(value, dict) and isinstance(known, dict):
        return [line for key in value for line in lost(value[key], known.get(key), f"{path}.{key}")]
    if isinstance(value, list) and isinstance(known, list) and len(value) == len(known):
        return [line for i, pair in enumerate(zip(value, known, strict=True)) for line in lost(*pair, f"{path}[{i}]")]
    return [] if value == known else [path]


@pytest.fixture(params=["kubernetes.yaml", "kubernetes_tpu.yaml"])
def jobset(request):
    return yaml.safe_load((LAUNCH / request.param).read_text())


def test_the_api_knows_every_field_and_type(jobset):
    assert lost(jobset, JobSet.from_dict(jobset).to_dict()) == []
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    job["template"]["spec"]["completionMod"] = "Indexed"
    assert lost(jobset, JobSet.from_dict(jobset).to_dict()) == [".spec.replicatedJobs[0].template.spec.completionMod"]
    job["replicas"] = "1"
    with pytest.raises(ValueError, match="replicas"):
        JobSet.from_dict(jobset)


def test_figures_and_names_agree(jobset):
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    environment = {variable["name"]: variable for variable in container["env"]}
    ports = [port["containerPort"] for port in container["ports"]]
    if "SFACE_DISTRIBUTED" in environment:  # a TPU slice
        assert environment["SFACE_DISTRIBUTED"]["value"] == "auto" and 8482 in ports
        across = [int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
        assert across[0] * across[1] == spec["completions"] * container["resources"]["limits"]["google.com/tpu"]
    else:
        assert int(environment["SFACE_NUM_PROCESSES"]["value"]) == spec["completions"]
        name = jobset["metadata"]["name"]
        address = f"{name}-{job['name']}-0-0.{name}:{ports[0]}"
        assert environment["SFACE_COORDINATOR"]["value"] == address
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_a_mistake_ends_it_and_anything_else_starts_it_again(jobset):
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    codes = rule["onExitCodes"]
    assert (rule["action"], codes["operator"], codes["containerName"]) == ("FailJob", "In", "sface")
    assert errors.MISTAKEN in codes["values"]
    assert not {errors.LOST, errors.ASKED, 0} & set(codes["values"])
    assert spec["backoffLimit"] == 0 and spec["template"]["spec"]["restartPolicy"] == "Never"
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
