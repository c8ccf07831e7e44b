"""A short campaign, and that one would notice what it is there to notice."""

import contextlib
import dataclasses
import time
from pathlib import Path

import pytest

from tests.faults import episode, plans, states
from tests.faults.campaign import KINDS, STAGES, Campaign, sound, table
from tests.faults.injections import Injection
from tests.faults.plans import ALONE, Plan
from tests.faults.running import Topology

TWO = Topology(2, 1)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("campaign"), 0, list(KINDS), STAGES)


def injection(kind, way, victims=(0,), after=4, topology=ALONE, seed=0):
    return Injection(kind, way, victims, after, 0.05, topology, seed)


def test_one_process_comes_through_what_is_done_to_it_and_to_its_checkpoints(campaign):
    faults = [
        injection("bytes flipped", "term", after=7),
        injection("NaN in a step", "after", after=2),
        injection("kill -9", "kill", after=3),
    ]
    outcomes = campaign.play(Plan(0, "recognition", ALONE, faults))
    assert len(outcomes) == 3 and all(map(sound, outcomes)), outcomes


def test_of_two_processes_both_end_where_one_is_asked_to_killed_or_hangs(campaign):
    faults = [
        injection("SIGTERM", "term", (1,), 1, TWO),
        injection("kill -9", "kill", (1,), 1, TWO),
        injection("hung process", "stop", (0,), 1, TWO),
    ]
    outcomes = campaign.play(Plan(1, "matching", TWO, faults))
    assert len(outcomes) == 3 and all(map(sound, outcomes)), outcomes


def test_what_lies_half_written_is_seen(tmp_path):
    with episode._reader(str(tmp_path), injection("slow storage", "term")) as seen:
        (tmp_path / "whole.json").write_text("{}")
        (tmp_path / "half.json").write_text('{"half": ')
        time.sleep(0.3)
    assert seen and all("half.json was seen half-written" in told for told in seen)


class Spoiling(Injection):
    """Leaves the run a little off, without a word."""

    def environment(self, process):
        return {"FAULT_SPOIL": "1"}


def test_a_wrong_result_is_not_overlooked(campaign):
    silent = Spoiling("kill -9", "kill", (0,), 5, 0.2, ALONE, 0)
    (outcome,) = campaign.play(Plan(2, "recognition", ALONE, [silent]))
    assert outcome.ended and outcome.resumed
    assert not outcome.checkpoints and "is not the undisturbed run's" in outcome.note
    assert not outcome.right and "the final state is not" in outcome.note


def test_a_wrong_checkpoint_is_not_overlooked(campaign, tmp_path):
    reference = campaign.reference("recognition", ALONE)
    good = states.result("recognition", reference)
    for change in (lambda x: x * float("nan"), lambda x: x + 1e-7):
        bad = {**good, "arrays": {name: change(x) if x.ndim > 1 else x for name, x in good["arrays"].items()}}
        assert episode.differs("recognition", bad, good, exactly=True)
        assert states.finite(bad["arrays"]) == states.finite({"x": change(good["arrays"]["step"] * 1.0)})
    assert not episode.differs("recognition", good, good, exactly=True)
    once_more = {**good, "losses": [*good["losses"], good["losses"][-1]]}
    assert episode.differs("recognition", once_more, good, exactly=False)


def test_a_campaign_is_drawn_from_its_seed_and_holds_every_kind():
    drawn = [plans.draw(number, 0, list(KINDS), STAGES, 5) for number in range(60)]
    assert drawn == [plans.draw(number, 0, list(KINDS), STAGES, 5) for number in range(60)]
    assert drawn[0] != plans.draw(0, 1, list(KINDS), STAGES, 5)
    assert {x.kind for plan in drawn for x in plan.injections} == set(KINDS)
    assert {plan.stage for plan in drawn} == set(STAGES)


def test_the_table_counts_what_went_wrong():
    good = episode.Outcome(0, 0, "SIGTERM", "term", "gan", "1x1", 1.0, ended=True, resumed=True)
    bad = dataclasses.replace(good, ended=False, checkpoints=False, right=False, hung=True, seconds=30.0)
    assert table([good, bad]).splitlines()[2] == "| SIGTERM | 2 | 1 | 2 | 1 | 1 | 1 | 30.0 |"
    assert sound(good) and not sound(bad)


def test_no_process_is_left_behind(campaign):
    ours, left = str(campaign.folder), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            left += [path for command in [path.read_bytes().decode(errors="replace")] if ours in command]
    assert not left
