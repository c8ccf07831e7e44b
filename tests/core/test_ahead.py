"""Programs compiled ahead of time: what is told of those that fit, and of those that do not."""

import json

import jax
import jax.numpy as jnp
import pytest
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import ahead, chips
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError

REFUSAL = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (40.25G) exceeds available HBM (15.75G). HLO module: jit_f."
)


class Refused:
    """A lowered program that its compiler refuses."""

    def compile(self, compiler_options=None):
        raise jax.errors.JaxRuntimeError(REFUSAL)


def product() -> ahead.Program:
    x = jax.ShapeDtypeStruct((32, 32), jnp.float32)
    return ahead.Program(lambda: jax.jit(lambda x: x @ x).lower(x), 2.0 * 32**2, 32)


def told(tmp_path, programs, names=()):
    config = ConfigDict({"name": "compile_here", "topology": "", "programs": names})
    return ahead.tell(config, epath.Path(tmp_path), meshes.make_mesh(), programs, batch_size=32)


def test_one_program_that_does_not_fit_ends_nothing(tmp_path, caplog):
    programs = {"large": ahead.Program(Refused, 0.0, 32), "small": product()}
    rows = told(tmp_path, programs)["programs"]
    assert rows == json.loads((tmp_path / "compile" / "here.json").read_text())["programs"]
    assert not rows["large"]["fits"]
    assert (rows["large"]["needs_gib"], rows["large"]["has_gib"]) == (40.25, 15.75)
    assert rows["small"]["fits"]
    assert rows["small"]["ratio"] == pytest.approx(1, rel=0.1)
    line = ahead.refusal("large", rows["large"])
    assert line == (
        "large DOES NOT FIT the memory of a chip (needs 40.25 of 15.75 GiB): lower batch_per_device, or take a larger "
        "slice"
    )


def test_a_program_that_jax_cannot_read_is_read_as_its_compiler_dumped_it(tmp_path):
    class Newer:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure (hlo_instruction.cc:390)")

    with pytest.raises(jax.errors.JaxRuntimeError):
        ahead._text(Newer(), tmp_path)
    (tmp_path / "module_0000.jit__step.cl_1.after_codegen.txt").write_text("HloModule jit__step")
    (tmp_path / "module_0001.extracted.cl_1.after_codegen.txt").write_text("HloModule extracted")
    assert ahead._text(Newer(), tmp_path) == "HloModule jit__step"


def test_what_is_known_of_a_chip_tells_times_and_limits(tmp_path, monkeypatch):
    tiny = chips.Chip("tiny", tflops=1, int8_tops=1, memory_gib=16, memory_gbps=1, link_gbps=1)
    monkeypatch.setattr(chips, "of", lambda kind: tiny)
    row = told(tmp_path, {"small": product()})["programs"]["small"]
    assert row["bound"] == "memory"
    assert row["seconds"]["least"] == pytest.approx(row["traffic"] / 1e9)
    monkeypatch.setattr(chips, "of", lambda kind: chips.Chip("none", 1, 1, 1e-6, 1, 1))
    row = told(tmp_path, {"small": product()})["programs"]["small"]
    assert not row["fits"]  # though the compiler took it
    assert row["needs_gib"] > row["has_gib"]


def test_another_failure_is_no_matter_of_memory(tmp_path):
    class Broken:
        def compile(self, compiler_options=None):
            raise jax.errors.JaxRuntimeError("INTERNAL: no")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        told(tmp_path, {"broken": ahead.Program(Broken, 0.0, 32)})


def test_programs_are_chosen_by_name(tmp_path):
    programs = {"a": product(), "b": product()}
    assert list(told(tmp_path, programs, names=("b",))["programs"]) == ["b"]
    with pytest.raises(UserError, match="choose from a, b"):
        told(tmp_path, programs, names=("c",))
