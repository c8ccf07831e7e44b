"""Stage verify on pairs and on templates: `... verify_worker WORKDIR TEMPLATES`; tells the figures it wrote."""

import json
import sys

import jax
from etils import epath

from configs import verify
from sface_jax.core import cluster, files, mesh
from sface_jax.verification import evaluate


def main() -> None:
    cluster.join()
    workdir, templates = epath.Path(sys.argv[1]), sys.argv[2]
    config = verify.get_config()
    benchmarks = ("heldout", f"ijb=templates:{templates}")
    config.update({"networks": ("combined",), "benchmarks": benchmarks, "batch_size": 24, "replicates": 20})
    table = evaluate.run(config, workdir)
    mesh.barrier("written")
    told = files.read_json(workdir / "verification" / "combined.json")["benchmarks"]
    for result in told.values():
        for key in ("embedding_seconds", "pictures_per_second"):
            result.pop(key)
    print(json.dumps({"devices": jax.device_count(), "table": table, "told": told}))


if __name__ == "__main__":
    main()
