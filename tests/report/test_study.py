"""Figures over runs: what they say of made-up numbers, and that configs ask for what their pipelines make."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from scipy import stats

from configs import study as config
from configs import study_lfw
from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.main import STAGES
from sface_jax.report import repeated, study

VALUES = st.lists(st.floats(0.01, 1).map(lambda value: round(value, 3)), min_size=3, max_size=6)


def figures(*values: float) -> list[dict[str, float]]:
    return [{"value": value, "low": 0.8 * value, "high": 1.2 * value} for value in values]


def exact(*values: float) -> list[dict[str, Any]]:
    return [{"value": value, "low": None, "high": None} for value in values]


def against(more: list, less: list, ratio: bool = False) -> repeated.Contrast:
    found = repeated.contrast("q", ["a"], ["b"], "m", {"m": {"a": more, "b": less}}, ratio)
    assert found is not None
    return found


def test_an_interval_over_runs_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [
        made.low <= 0.7 <= made.high
        for made in (repeated.estimate(exact(*rng.normal(0.7, 0.02, 3))) for _ in range(2000))
    ]
    assert 0.935 < np.mean(held) < 0.965


def test_a_single_run_has_its_own_interval_and_none_has_nothing():
    assert repeated.estimate([None, *figures(0.5)]) == repeated.Estimate(0.5, 0.4, 0.6, (0.5,))
    assert repeated.estimate([None, None]) is None


def test_runs_that_are_alike_by_luck_are_not_taken_for_certainty():
    none = repeated.estimate([{"value": 0.0, "low": 0.0, "high": high} for high in (0.03, 0.04)], ratio=True)
    assert (none.mean, none.low) == (0, 0) and none.high == pytest.approx(0.025)
    alike = repeated.estimate(figures(0.5, 0.5, 0.5, 0.5))
    assert (alike.low, alike.high) == (pytest.approx(0.45), pytest.approx(0.55))
    folds = [{"value": 0.5, "per_fold": [0.3, 0.5, 0.7]}] * 2, [{"value": 0.4, "per_fold": [0.4, 0.4, 0.4]}] * 2
    made = against(*folds)
    assert made.difference.mean == pytest.approx(0.1) and made.answer == "not told apart"


def test_rates_of_few_hits_are_not_held_by_ratio():
    for hits, ratio in ((14, False), (15, True)):
        rates = [{"value": 0.001, "low": 0.0, "high": 0.002, "hits": hits}] * 2
        assert against([{**rate, "value": 0.1, "hits": 900} for rate in rates], rates, ratio=True).ratio == ratio


def test_an_answer_that_does_not_stand_among_all_is_told_so():
    clear, vague = (
        against(figures(0.9, 0.91, 0.9), figures(0.1, 0.11, 0.12)),
        against(figures(3, 4, 5), figures(1, 1, 1)),
    )
    assert vague.p_value == pytest.approx(stats.ttest_1samp([2, 3, 4], 0).pvalue) and 0.025 < vague.p_value < 0.05
    assert [made.answer for made in repeated.answered([clear, vague])] == ["more", "more"]
    open_ = against(figures(0.5, 0.6, 0.7), figures(0.6, 0.6, 0.6))
    told = [made.answer for made in repeated.answered([clear, open_, vague])]
    assert told == ["more", "not told apart", "perhaps more"]


@settings(max_examples=50, deadline=None)
@given(VALUES, st.floats(0.1, 10))
def test_rates_are_held_against_each_other_by_ratio(values, times):
    rates = figures(*values)
    made = against([{"value": times * figure["value"]} for figure in rates], rates, ratio=True)
    assert made.difference.mean == pytest.approx(times) and made.ratio
    mean = repeated.estimate(rates, ratio=True)
    assert mean.mean == pytest.approx(np.exp(np.log(values).mean()))
    assert 0 < mean.low <= mean.mean * (1 + 1e-9) and mean.mean <= mean.high * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1)), min_size=2, max_size=6))
def test_what_differs_between_runs_alone_drops_out_of_a_difference(runs):
    more, less, shift = np.array(runs).T
    made = against(figures(*more), figures(*less))
    moved = against(figures(*(more + shift)), figures(*(less + shift)))
    np.testing.assert_allclose(moved.difference.mean, made.difference.mean, atol=1e-9)
    np.testing.assert_allclose(
        [moved.difference.low, moved.detectable], [made.difference.low, made.detectable], atol=1e-7
    )
    turned = against(figures(*less), figures(*more))
    assert turned.difference.mean == pytest.approx(-made.difference.mean, abs=1e-12)
    assert {made.answer, turned.answer} in ({"more", "less"}, {"not told apart"})


def test_what_would_be_found_is_found_four_times_in_five():
    rng, found, size = np.random.default_rng(1), [], []
    true = repeated._noncentral(2) * 0.02 / np.sqrt(3)  # what three runs of this spread would find
    for _ in range(1500):
        made = against(figures(*rng.normal(0.5 + true, 0.02, 3)), figures(0.5, 0.5, 0.5))
        found.append(made.answer == "more")
        size.append(made.detectable**2)
    assert 0.77 < np.mean(found) < 0.83
    assert np.sqrt(np.mean(size)) == pytest.approx(true, rel=0.05)


def test_runs_without_both_groups_are_left_out_and_one_run_is_judged_by_folds():
    made = against([*figures(0.9, 0.8), None], figures(0.7, 0.7, 0.1))
    np.testing.assert_allclose(made.difference.values, [0.2, 0.1])
    assert against(figures(0.9), figures(0.7)).answer == "one run"
    folds = [{"value": 0.5, "per_fold": [0.4, 0.5, 0.6]}], [{"value": 0.2, "per_fold": [0.1, 0.3, 0.2]}]
    made = against(*folds)
    expected = stats.ttest_1samp([0.3, 0.2, 0.4], 0).confidence_interval()
    assert (made.difference.low, made.difference.high) == pytest.approx(tuple(expected))
    assert made.answer == "more for these networks"
    drawn = np.random.default_rng(0).normal(0, [[0.01], [0.03]], (2, 1000)) + np.random.default_rng(1).normal(
        0, 1, 1000
    )
    a, b = (
        [{"value": value, "replicates": (value + of).tolist()}] for value, of in zip((0.5, 0.4), drawn, strict=True)
    )
    made = against(a, b)  # what both share drops out
    assert made.difference.high - made.difference.low == pytest.approx(2 * 1.962 * np.hypot(0.01, 0.03), rel=0.1)
    assert repeated.contrast("q", ["a"], ["c"], "m", {"m": {"a": figures(1)}}) is None


PIPELINES = {
    "study": (config.get_config(), config.get_config("figures")),
    "study_lfw": (study_lfw.get_config(), study_lfw.get_config("figures")),
    "accelerator": (study_lfw.get_config("accelerator;/data"), study_lfw.get_config("accelerator;/data").study),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_figures_ask_for_what_the_pipeline_makes(name):
    pipeline, asked = PIPELINES[name]
    stages = [pipeline[key] for key in pipeline.stages]
    assert all(stage.stage in STAGES for stage in stages)
    audited = [stage for stage in stages if stage.stage == "privacy"]
    audits = [stage.output.removeprefix("{workdir}/") for stage in audited]
    sets = [stage.output for stage in stages if stage.stage == "synthesize"]
    networks = [stage.name for stage in stages if stage.stage == "recognition"]
    for outputs in (audits, sets, networks):
        assert len(set(outputs)) == len(outputs)
    assert set(networks) <= set(pipeline.verify.networks)
    for chart in asked.charts:
        if "scores" in chart:
            assert chart["scores"] in audits
        else:
            parts = {
                f"{stage.output.removeprefix('{workdir}/')}#{name}" for stage in audited for name in stage.released
            }
            others = {
                f"{stage.output.removeprefix('{workdir}/')}@{name}" for stage in audited for name in stage.matchers[1:]
            }
            named = {name if name in parts else name.partition("#")[0] for name in study._names(chart)} - others
            verified = {*pipeline.verify.networks, *pipeline.verify.baselines}
            assert named <= {"accuracy": verified, "released": parts}.get(chart["measure"], set(audits))
    for stage in stages:  # each stage finds what it reads, made before it
        made = {"{workdir}/authentic", *sets}
        assert stage.get("dataset", "{workdir}/authentic") in made
        assert stage.get("synthetic", "{workdir}/authentic") in made
    assert len({chart["name"] for chart in asked.charts}) == len(asked.charts)


def write_run(folder: epath.Path, seed: int) -> None:
    """What a seed's pipeline leaves behind, with made-up figures."""
    rng = np.random.default_rng(seed)
    pipeline, asked = PIPELINES["study"]
    files.write_json(folder / "stages.json", {"gan": {"state": "finished", "wall_seconds": 90.0}})
    files.write_json(folder / "config.json", {"gan": {"stage": "gan", "seed": seed}})
    for name in (*pipeline.verify.networks, *pipeline.verify.baselines):
        value = float(rng.uniform(0.8, 0.9))
        result = {
            "accuracy": value,
            "interval_95": {"accuracy": [value - 0.02, value + 0.02]},
            "per_fold": [value] * 10,
        }
        files.write_json(folder / "verification" / f"{name}.json", {"benchmarks": {"heldout": result}})
    named = {name for chart in asked.charts for name in study._names(chart) if name.startswith("audits/")}
    for name in {name.partition("#")[0] for name in named}:
        rate = {"rate": float(rng.uniform(0.01, 0.05)), "interval": [0.01, 0.05]}
        relations = ("authentic_synthetic", "authentic_synthetic_different", "authentic_authentic")
        audit = {"match_rates": {relation: {"1e-3": rate} for relation in relations}}
        eer = {"eer": rate["rate"], "eer_interval": rate["interval"]}
        audit["relations"] = dict.fromkeys(("authentic_synthetic", "authentic_authentic", "synthetic_synthetic"), eer)
        audit["linkage"] = {"single": {"rank1": rate}, "pooled": {"all": {"mean": {"rank1": rate}}}}
        audit["membership"] = {"identity": {"auc": 0.5 + rate["rate"], "interval": None}}
        audit["released"] = {"networks": {network: audit["membership"]["identity"] for network in config.RELEASED}}
        files.write_json(folder / name / "audit.json", audit)


def test_runs_become_figures_that_are_drawn_again_from_their_numbers(tmp_path, caplog):
    for seed in (0, 2):
        write_run(epath.Path(tmp_path) / str(seed), seed)
    (tmp_path / "2" / "verification" / "age_64.json").unlink()
    (tmp_path / "0" / "verification" / "age_64.json").unlink()

    def made(workdir, **keys) -> tuple[dict, dict[str, bytes]]:
        asked = ConfigDict({**PIPELINES["study"][1].to_dict(), "output": f"{workdir}/study", **keys})
        told = study.run(asked, epath.Path(workdir))
        return told, {path.name: path.read_bytes() for path in (workdir / "study").iterdir()}

    told, written = made(tmp_path, runs=tuple(str(tmp_path / str(seed)) for seed in (0, 1, 2)))
    assert told["runs"] == ["0", "2"] and told["missing"] == ["age_64"]
    for chart in PIPELINES["study"][1].charts:
        root = ElementTree.fromstring(written[f"{chart['name']}.svg"])
        assert root.tag.endswith("svg") and root.get("aria-label") == chart["title"]
        assert chart["title"] in written["study.md"].decode() and chart["title"] in written["index.html"].decode()
    again = made(tmp_path / "again", results=str(tmp_path / "study" / "study.json"))
    assert again[1] == written
    with pytest.raises(UserError, match="nothing is measured"):
        made(tmp_path / "none", runs=(str(tmp_path / "1"),))
