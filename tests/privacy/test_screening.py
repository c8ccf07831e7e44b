"""Screening on made-up people: leaks are found, strangers are not."""

import numpy as np
import pytest

from sface_jax.core.errors import UserError
from sface_jax.privacy.attacks.screening import AUTHENTIC, HELDOUT, Found, screen
from sface_jax.privacy.relations import Faces
from tests.privacy.crowd import people, unit

MEMBERS, OTHERS = people(60, 4), people(40, 4, first=100)
FRESH = people(300, 4, first=1000)


def with_leaks(count):
    """The first pictures show members."""
    embeddings = FRESH.embeddings.copy()
    embeddings[:count] = people(60, 2, seed=7).embeddings[:count]
    return Faces(embeddings, FRESH.labels)


def test_strangers_are_within_chance_and_leaks_are_found():
    clean = screen(FRESH, MEMBERS, OTHERS).figures()
    assert clean["null"] == HELDOUT and not clean["noticed"] and list(clean["rates"]) == ["1e-2", "1e-3"]
    assert clean["unsupported"] == ["1e-4"] and clean["notes"] == []
    for key, allowed in (("1e-2", 12), ("1e-3", 1)):
        rate = clean["rates"][key]
        assert rate["exceedances"] == allowed and rate["expected"] == pytest.approx(allowed * 60 / 40)
        assert rate["interval"][0] <= rate["links"] <= rate["interval"][1] and not rate["rule_of_30"]

    leaky = screen(with_leaks(50), MEMBERS, OTHERS)
    found = leaky.figures(listed=50)
    assert found["noticed"] and found["rates"]["1e-3"]["p_value"] < 0.01
    assert found["rates"]["1e-3"]["excess"] > 30
    hits = [row for row in found["suspicious"] if row["picture"] < 50]
    assert len(hits) > 40 and all(row["identity"] == row["picture"] // 2 for row in hits)
    assert all(MEMBERS.labels[row["member"]] == row["identity"] for row in hits)
    order = [row["expected_by_chance"] for row in found["suspicious"]]
    assert order == sorted(order) and found["suspicious"][0]["rate"] == "1e-3"


def test_one_copy_among_many_is_noticed_by_its_strength():
    embeddings = FRESH.embeddings.copy()
    embeddings[17] = MEMBERS.embeddings[5]
    found = screen(Faces(embeddings, FRESH.labels), MEMBERS, OTHERS).figures(1)
    assert found["noticed"] and found["strongest"]["p_value"] < 0.01 and found["rates"]["1e-3"]["p_value"] > 0.05
    assert found["suspicious"][0]["picture"] == 17 and found["suspicious"][0]["member"] == 5


def test_hubs_do_not_crowd_out_leaks():
    """Pictures alike to everybody raise the threshold of plain cosines beyond those of leaks, not that of links."""
    away = np.random.default_rng(0).standard_normal(32)
    members, others = (Faces(unit(f.embeddings + 0.4 * unit(away[None])), f.labels) for f in (MEMBERS, OTHERS))
    synthetic = with_leaks(20).embeddings.copy()
    synthetic[:20] = members.embeddings[:20] + 0.7 * unit(np.random.default_rng(1).standard_normal((20, 32)))
    hubs = unit(away + 0.2 * np.random.default_rng(2).standard_normal((600, 32)))
    synthetic[600:] = hubs
    found = screen(Faces(unit(synthetic), FRESH.labels), members, others).flagged("1e-2")
    assert np.isin(np.arange(20), found.pictures).mean() > 0.8


def test_without_heldout_people_less_is_claimed():
    found = screen(with_leaks(50), MEMBERS).figures()
    assert found["null"] == AUTHENTIC and found["rates"]["1e-2"]["p_value"] is None
    assert found["rates"]["1e-2"]["interval"] is None and "Without held-out people" in found["notes"][0]
    assert found["rates"]["1e-2"]["expected"] == pytest.approx(2 * 1200 * 60 / (240 * 59))


def test_members_with_more_pictures_are_tested_with_as_many_as_others():
    members = people(60, 12)
    found = screen(FRESH, members, OTHERS)
    told = found.figures()
    assert told["drawn"] and "other numbers of pictures" in told["notes"][0] and not told["noticed"]
    assert len(found.links.scores) == len(found.tested.scores) and found.links.scores.sum() > found.tested.scores.sum()
    rate = told["rates"]["1e-2"]
    assert rate["listed"] > rate["flagged"] and rate["interval"][0] <= rate["links"] <= rate["interval"][1]


def test_pictures_beyond_chance_are_counted():
    rate = screen(with_leaks(50), MEMBERS, OTHERS).figures()["rates"]["1e-3"]
    assert rate["flagged"] == rate["listed"] > 40 and rate["expected_flagged"] == pytest.approx(60 / 40, abs=0.1)
    assert 20 < rate["excess_low"] <= rate["flagged"] and rate["p_adjusted"] == pytest.approx(3 * rate["p_value"])
    found = screen(FRESH, MEMBERS, OTHERS)
    assert len(found.flagged_by_null("1e-2").scores) <= 12 and not len(found.flagged_by_null("1e-9").scores)
    assert (found.flagged_by_null("1e-2").people >= 100).all()


def test_repeated_pictures_are_no_evidence():
    noticed = 0
    for seed in range(10):
        few = people(15, 1, first=2000 + 20 * seed)
        again = Faces(np.repeat(few.embeddings, 40, axis=0), np.arange(600))
        noticed += screen(again, MEMBERS, OTHERS, seed=seed).figures(0)["strongest"]["p_value"] < 0.05
    assert noticed <= 1


def test_one_person_under_two_labels_hides_no_copies():
    leaky, labels = FRESH.embeddings.copy(), people(60, 8).labels.copy()
    leaky[:20] = people(60, 8).embeddings[100:420:16]
    for person in range(4):
        labels[person * 8 + 4 : person * 8 + 8] = 500 + person
    members = Faces(people(60, 8).embeddings, labels)
    found = screen(Faces(leaky, FRESH.labels), members).figures()
    assert found["same_people"] == 4 and "two labels" in found["notes"][1] and found["noticed"]
    assert screen(FRESH, people(60, 8)).figures()["same_people"] == 0

    both = people(4, 4, seed=3)  # the first members, held out
    others = Faces(
        np.concatenate([OTHERS.embeddings, both.embeddings]), np.concatenate([OTHERS.labels, both.labels + 900])
    )
    found = screen(with_leaks(50), MEMBERS, others).figures()
    assert found["same_people"] == 4 and found["null_people"] == 40 and "4 held-out people" in found["notes"][0]
    assert found["rates"]["1e-3"]["p_value"] < 0.01
    with pytest.raises(UserError, match="every held-out person"):
        screen(FRESH, MEMBERS, Faces(MEMBERS.embeddings, MEMBERS.labels + 500))


def test_nothing_is_tested_where_people_are_not_known():
    found = screen(with_leaks(50), MEMBERS, OTHERS, people_known=False)
    told = found.figures()
    assert found.p_values() == {} and told["noticed"] is None and told["suspicious"] and "not known" in told["notes"][0]
    assert told["rates"]["1e-3"]["p_value"] is None and told["rates"]["1e-3"]["excess_low"] is None


def test_replaced_pictures_are_screened_as_if_they_had_been_there():
    rows = np.arange(50)
    leaky, clean = screen(with_leaks(50), MEMBERS, OTHERS), screen(FRESH, MEMBERS, OTHERS)
    chosen = np.arange(len(FRESH)) < len(rows)
    found = Found(*(links.of_pictures(chosen) for links in (leaky.links, leaky.tested, leaky.null)))
    again = clean.replaced(rows, found, len(rows))
    assert again.thresholds == leaky.thresholds and again.p_value() == leaky.p_value()
    np.testing.assert_array_equal(again.links.scores, leaky.links.scores)
