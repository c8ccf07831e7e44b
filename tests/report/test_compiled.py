"""Tables of compiled programs: what all of the paper costs, and what grows with the chips."""

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.report import compiled, compiled_paper, compiled_scaling

GIB = 2**30


def program(least: float, estimated: float | None = None, fits: bool = True) -> dict:
    if not fits:
        return {"fits": False, "change": "lower batch_per_device", "needs_gib": 40.25, "has_gib": 15.75}
    seconds = {"least": least} | ({"estimated": estimated} if estimated else {})
    cost = {"memory": GIB, "arguments": GIB / 2, "temporaries": GIB / 4, "flops": 1e12, "traffic": 1e9, "wire": 1e6}
    return {"fits": True, "seconds": seconds, "bound": "compute", **cost}


def written(folder, large: bool = False) -> ConfigDict:
    """Files as the stages write them, and the config of the table."""
    on = {"topology": "v5e:4x4", "devices": 16}
    strategies = ("classification", "distillation", "combined")
    phases = {"g_main": 0.02, "g_path": 0.04, "finish": 0.01}
    told = {
        "gan": {
            **on,
            "image_size": 128,
            "batch_size": 32,
            "programs": {k: program(v, 2 * v) for k, v in phases.items()},
        },
        "draw": {"topology": "v5e:2x2", "devices": 4, "image_size": 128, "strategy": "free", "batch_size": 256}
        | {"programs": {"draw": program(0.1)}},
        "train": {**on, "network": "iresnet50", "classes": 10572, "batch_size": 512}
        | {"programs": {name: program(0.5, 1.0, fits=not large) for name in strategies}},
        "embed": {**on, "network": "iresnet50", "batch_size": 1024, "programs": {"embed": program(0.25, 0.5)}},
        "match": {**on, "queries": 2000, "tile": 500, "batch_size": 1000, "programs": {"compare": program(1.0, 2.0)}},
    }
    for name, row in told.items():
        files.write_json(epath.Path(folder) / "compile" / f"{name}.json", row)
    roles = {"gan": "gan", "synthesis": "draw", "recognition": "train", "embedding": "embed", "matching": "match"}
    return ConfigDict(
        {"rows": tuple(told), "recipes": {"here": roles}, "efficiency": 0.5, "kimg": 16.0, "epochs": 2.0}
        | {"synthetic": 2048, "authentic": 1024, "matchers": 3, "intervals": {"g_main": 1, "g_path": 4, "finish": 1}}
    )


def test_the_whole_paper_is_the_sum_of_its_parts(tmp_path):
    told = compiled_paper.run(written(tmp_path), epath.Path(tmp_path))["here"]
    own = {part["name"]: part for part in files.read_json(tmp_path / "compile" / "paper.json")["here"]}
    assert own["GAN, 128 pixels"]["runs"] == 500
    assert own["GAN, 128 pixels"]["least"] == pytest.approx(0.02 + 0.04 / 4 + 0.01)
    assert own["synthesis"]["runs"] == 2048 / (256 * 4)  # four machines draw side by side
    assert own["teacher"]["runs"] == 2 * 1024 / 512
    assert own["combined"]["runs"] == 2 * 2048 / 512
    assert own["audit: embedding"]["runs"] == 3 * 3072 / 1024
    assert own["audit: matching"]["runs"] == 3 * (3 * 3 + 3 * 5 + 2 * 3)
    seconds = 500 * 0.04 + 2 * 0.1 + (4 + 3 * 8) * 0.5 + 9 * 0.25 + 90 * 1.0
    assert told["hours_least"] == pytest.approx(seconds / 3600)
    assert told["chip_hours_least"] == pytest.approx(16 * seconds / 3600)
    assert told["hours_estimated"] is None  # drawing has no estimate
    text = (tmp_path / "compile" / "paper.md").read_text()
    assert "### here" in text
    assert "hours at 0.5" in text


def test_what_does_not_fit_has_a_row_and_no_hours(tmp_path):
    told = compiled_paper.run(written(tmp_path, large=True), epath.Path(tmp_path))["here"]
    assert told["hours_least"] is None
    text = (tmp_path / "compile" / "paper.md").read_text()
    assert text.count("NO: needs 40.2 of 15.8 GiB") == 3
    assert "lower batch_per_device" in text


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"gan\.json is missing"):
        compiled_paper.run(ConfigDict({"rows": ("gan",)}), epath.Path(tmp_path))


@given(size=st.floats(1, 1e12), group=st.sampled_from([1, 4, 16]))
def test_rings_do_not_grow(size, group):
    chips = (1, 4, 16, 64, 256)
    ring = {n: 2 * (n - 1) / n * size for n in chips}
    assert compiled_scaling.growth(ring) == pytest.approx(1)
    grouped = {n: ring[min(n, group)] for n in chips}  # groups of one size send the same on any number of chips
    assert compiled_scaling.growth(grouped) <= compiled_scaling.SLACK
    among = {n: 2 * (1 - group / n) * size for n in chips if n >= group}  # each group has all of it, and sums over them
    assert (compiled_scaling.growth(among, group) or 0) <= compiled_scaling.SLACK
    assert compiled_scaling.growth({64: 1.0, 256: 4.0}, group) > 2


def test_what_grows_is_found_and_named(tmp_path):
    for n in (1, 4, 16, 64, 256):
        kinds = {"all-reduce": 2e8 * (n - 1) / n, "all-gather": 1e5 * (n - 1)}
        row = {"fits": True, "wire": sum(kinds.values()), "kinds": {k: {"wire": v} for k, v in kinds.items()}}
        told = {"devices": n, "batch_size": 2 * n, "programs": {"step": row}}
        files.write_json(epath.Path(tmp_path) / "compile" / f"a_{n}.json", told)
    config = ConfigDict({"families": {"a": tuple(f"a_{n}" for n in (256, 64, 16, 4, 1))}})
    told = compiled_scaling.run(config, epath.Path(tmp_path))["a step"]
    assert told["growth"] > 1.1
    text = (tmp_path / "compile" / "scaling.md").read_text()
    assert "all-gather" in text
    assert "all-reduce" not in text


def test_tables_are_markdown():
    assert compiled.table(("a", "n"), [("x", "1.5"), ("longer", "-")]) == (
        "| a      |   n |\n| ------ | --: |\n| x      | 1.5 |\n| longer |   - |\n"
    )
