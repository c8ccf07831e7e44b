"""The sweep's config holds together, and its page shows the settings that none beats."""

import csv
import json

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import frontier as config
from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.main import STAGES
from sface_jax.report import frontier
from sface_jax.report.frontier import Figure, Point

SHARES = st.integers(0, 8).map(lambda n: n / 8)


def measured(workdir: epath.Path, setting: str, accuracy: float, rate: float, auc: float | None) -> None:
    name = config.name_of(setting)
    result = {"accuracy": accuracy, "interval_95": {"accuracy": [accuracy - 0.02, accuracy + 0.02]}}
    files.write_json(workdir / "verification" / f"{name}.json", {"benchmarks": {"heldout": result}})
    audit = {
        "sets": {"synthetic": {"pictures": 64}},
        "match_rates": {"authentic_synthetic": {"1e-3": {"rate": rate, "interval": [rate / 2, 2 * rate]}}},
        "membership": {"identity": {"auc": auc, "interval": None}} if auc else {},
        "released": {"networks": {name: {"auc": 0.6, "interval": [0.5, 0.7]}}},
        "verdict": {"level": "weakly linkable"},
    }
    files.write_json(workdir / "points" / name / "privacy" / "audit.json", audit)


def sweep(*points: str) -> config.ConfigDict:
    return config.ConfigDict({"points": points, "benchmark": "heldout", "fmr": "1e-3"})


@pytest.mark.parametrize("variant", ["", *config.SWEEPS, "full", "base;psi=0.7,per_class=16", "full;base;seed=3"])
def test_every_stage_of_a_sweep_is_described_and_writes_to_a_place_of_its_own(variant):
    found = config.get_config(variant)
    assert all(found[key].stage in STAGES for key in found.stages)
    outputs = [found[key].output for key in found.stages if found[key].stage in ("synthesize", "privacy")]
    names = [found[key].name for key in found.stages if found[key].stage == "recognition"]
    assert len(set(outputs)) == len(outputs) and len(set(names)) == len(names)
    assert set(found.verify.networks) <= set(names)
    assert [frontier.name_of(point) for point in found.frontier.points] == list(found.verify.networks)
    if variant == "full":  # nothing that the stages' own configs do not leave
        assert not any("kimg" in point or "exclude" in point for point in found.frontier.points)
    # a matcher that made an exclusion list never judges what is left
    for key in found.stages:
        if key.endswith("_privacy"):
            assert found[key].matchers == ("matcher",)
    found.seed = 5
    assert {found[key].seed for key in found.stages if key.endswith("_privacy")} == {5}


@pytest.mark.parametrize("variant", ["psi=", "colour=red", "train=x", "kimg=17", "kimg=960"])
def test_settings_that_cannot_be_are_refused(variant):
    with pytest.raises(ValueError):
        config.get_config(variant)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=12))
def test_the_front_holds_just_those_that_none_beats(pairs):
    points = [
        Point(str(i), None, Figure(accuracy, None, None), {"match_rate": Figure(leak, None, None)}, "")
        for i, (accuracy, leak) in enumerate(pairs)
    ]
    kept = {int(setting) for setting in frontier.front(points, "match_rate")}
    for i, (accuracy, leak) in enumerate(pairs):
        beaten = any(a >= accuracy and x <= leak and (a, x) != (accuracy, leak) for a, x in pairs)
        assert (i in kept) != beaten
    best = [pairs[int(setting)] for setting in frontier.front(points, "match_rate")]
    assert best == sorted(best, key=lambda pair: (pair[1], pair[0]))
    assert max(pairs)[0] == best[-1][0] and min(leak for _, leak in pairs) == best[0][1]
    assert frontier.sentences(points, "match_rate")


def test_an_auc_below_one_half_is_no_less_leakage_than_chance():
    points = [
        Point(name, None, Figure(accuracy, None, None), {"membership": Figure(auc, None, None)}, "")
        for name, accuracy, auc in (("exact", 0.9, 0.5), ("lucky", 0.8, 0.4), ("leaky", 0.95, 0.6))
    ]
    assert frontier.front(points, "membership") == ["exact", "leaky"]


def test_the_page_the_table_and_the_json_of_a_sweep(tmp_path):
    workdir = epath.Path(tmp_path)
    measured(workdir, "base", 0.90, 0.20, 0.80)
    measured(workdir, "psi=0.5", 0.89, 0.02, None)
    measured(workdir, "per_class=8", 0.80, 0.10, 0.70)
    told = frontier.run(sweep("base", "psi=0.5", "per_class=8", "psi=0.3"), workdir)
    assert told["fronts"]["match_rate"] == ["psi=0.5", "base"] and told["missing"] == ["psi=0.3"]
    assert told["fronts"]["membership"] == ["per_class=8", "base"]
    found = json.loads((workdir / "frontier/frontier.json").read_text())
    line = "Least leakage at an accuracy not told from the best: psi=0.5 with 89.0\N{NO-BREAK SPACE}% accuracy"
    assert any(line in sentence for sentence in found["sentences"]["match_rate"])
    page = (workdir / "frontier/index.html").read_text()
    assert line in page and "psi=0.3" in page and "http://" not in page.replace("http://www.w3.org", "")
    rows = list(csv.DictReader((workdir / "frontier/frontier.csv").open()))
    assert [row["setting"] for row in rows] == ["base", "psi=0.5", "per_class=8"]
    assert rows[1]["membership"] == "" and rows[1]["front_match_rate"] == "1"
    assert float(rows[0]["match_rate_high"]) == 0.4 and rows[0]["membership_low"] == ""
    again = page
    frontier.run(sweep("base", "psi=0.5", "per_class=8", "psi=0.3"), workdir)
    assert (workdir / "frontier/index.html").read_text() == again


def test_a_rate_of_zero_is_drawn_and_nothing_measured_is_an_error(tmp_path):
    workdir = epath.Path(tmp_path)
    measured(workdir, "base", 0.5, 0.0, 0.5)
    assert frontier.run(sweep("base"), workdir)["fronts"]["match_rate"] == ["base"]
    with pytest.raises(UserError, match="configs/frontier.py"):
        frontier.run(sweep("psi=1"), workdir)
