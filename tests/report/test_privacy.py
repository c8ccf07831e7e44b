"""The audit's own page: whole, plain, silent about faces, and honest about what the audit lacks."""

from __future__ import annotations

import copy
import io
import random
import re
from base64 import b64decode

import numpy as np
import pytest
from etils import epath
from PIL import Image

from sface_jax.core import files
from sface_jax.report import advice, evidence, privacy, report, tried, words
from tests.report.conftest import NOT_DETECTED
from tests.report.test_report import CONFIG, Outline

AUC = {"auc": 0.82, "interval": [0.7, 0.9], "tpr_at_fpr": {"1e-1": 0.4}}
WEAK = {"auc": 0.55, "interval": [0.45, 0.65], "tpr_at_fpr": {"1e-1": 0.1}}
RANK = {"rate": 0.4, "interval": [0.3, 0.5], "comparisons": 64, "chance": 0.016}
MORE = {
    "linkage": {
        "single": {"rank1": RANK, "rank10": RANK},
        "pooled": {
            "all": {
                "mean": {
                    "rank1": RANK | {"rate": 0.73},
                    "rank10": RANK,
                    "open_set": {
                        "1e-2": {"fnir": 0.6, "interval": [0.5, 0.7], "chance_fnir": 0.99, "supported": False}
                    },
                }
            }
        },
    },
    "membership": {
        "identity": AUC | {"roc": {"fpr": [1.0, 0.1, 0.1, 0.0], "tpr": [1.0, 0.5, 0.4, 0.2]}},
        "picture": WEAK,
        "primary": {"identity": "calibrated_mean"},
        "attacks": {
            "nearest": {"unit": "picture", "text": "the nearest", **WEAK, "p_adjusted": 0.2},
            "calibrated_mean": {"unit": "identity", "text": "its mean", **AUC, "p_adjusted": 0.0004},
        },
        "epsilon": {
            "epsilon": 1.63,
            "confidence": 0.95,
            "delta": 0.0,
            "largest_measurable": 2.6,
            "tpr": 0.9,
            "fpr": 0.3,
        },
        "memorised": WEAK,
    },
    "power": {
        "power": 0.8,
        "match_rates": {"1e-3": {"rate": 0.0055, "ratio": 5.5}},
        "linkage": {"rank1": 0.045},
        "membership": {"members": 64, "heldout": 24, "auc": 0.64, "unseen_event": 0.125},
        "sentences": ["A sentence about power."],
    },
    "screening": {
        "null": "held-out people",
        "noticed": True,
        "rates": {"1e-3": {"fpr": 9e-4, "rule_of_30": False, "links": 119, "expected": 20.0, "interval": [4.8, 52.6]}},
        "copies": {
            "members": {"equal": 0, "alike": 2},
            "heldout": {"equal": 0, "alike": 1, "expected_among_members": 3.3},
        },
        "people": 64,
        "null_people": 24,
        "pictures": 1280,
        "notes": ["A test of the screening was not made."],
        "suspicious": [{"picture": 1301, "member": 3383, "identity": 105, "score": 0.35, "rate": "1e-3"}] * 30,
    },
    "discriminator": {
        "primary": {"identity": "highest"},
        "identity": WEAK,
        "attacks": {"highest": {"text": "the highest", "identity": WEAK}},
    },
    "released": {
        "primary": "separation",
        "control": {"network": "authentic", "found": True},
        "networks": {"authentic": AUC, "combined": AUC | {"difference": {"to": "classification", "auc": 0.2}}},
    },
    "remedy": {
        "excluded": 118,
        "kept": 1162,
        "list": "exclude.tsv",
        "judge": "second",
        "unused_judge": True,
        "comparison": [{"name": "links", "before": 119, "after": 30, "chance": 20.0}],
    },
    "notes": ["2 held-out identities are members: they are left out of the test"],
}


TABLES = (
    *(evidence.sets, evidence.thresholds, evidence.linkage, evidence.membership, evidence.screening, evidence.planted),
    *(evidence.networks, evidence.remedy, evidence.matchers),
)


@pytest.fixture
def audit(make, tmp_path):
    found = files.read_json(make(epath.Path(tmp_path / "made"), ("privacy",)) / "privacy" / "audit.json")
    found["controls"]["planted"]["kinds"]["exact"]["shares"] = {
        "1e-2": {"pictures": 13, "p_value": 0.01, "noticed": True, "noticed_of": [15, 20]},
        "1e-3": {"pictures": 1, "p_value": 0.3, "noticed": False},
    }
    found |= copy.deepcopy(MORE)
    found["other_matchers"] = {"second": {**copy.deepcopy(found), "membership": {}}}
    return found


@pytest.fixture
def write(tmp_path):
    def written(audit: dict, **options) -> str:
        privacy.write_page(epath.Path(tmp_path), audit, **options)
        return (epath.Path(tmp_path) / "index.html").read_text()

    return written


def said(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(" ".join(Outline(page).text).split())


def test_the_page_is_whole_and_shows_no_face(audit, write, tmp_path):
    page = write(audit)
    outline = Outline(page)
    assert len(page.encode()) < 1_000_000 and page == write(audit)
    assert not re.search(r"<img|<script|@import|url\((?!#)|https?:(?!//www.w3)", page) and str(tmp_path) not in page
    assert all(address[0] == "#" and address[1:] in outline.ids for address in outline.addresses)
    assert len(outline.ids) == len(set(outline.ids)) and not outline.mute
    assert "3383" not in page and page.count("<svg") == 5 and "{{" not in page and "None" not in said(page)


def test_an_officer_reads_what_was_tried_and_what_to_do(audit, write):
    told = said(write(audit))
    assert "linkable The synthetic pictures can be linked" in told
    found = {attack.name: attack for attack in tried.attacks(audit)}
    assert found["all pictures"].found == f"73.0{words.UNIT}" and found["all pictures"].above
    assert found["who trained it"].above and found["which picture"].above is False
    assert found["copies"].above is None and "recogniser authentic" not in found
    assert "of which found more than chance gives" in told and f"{len(found)} attacks" in told
    assert "Of 50 planted leaks of the kind “the very picture”" in told
    assert "13 pictures in 1,280 (1.02 %) of this kind in the set would be noticed (seen in 15 of 20 draws)." in told
    assert "Verdicts of further matchers: second, linkable." in told
    assert "Leave out the 118 synthetic pictures flagged. 1,162 remain." in told
    assert "The rate is per search among as many people as are held out (24); among the 64 members" in told
    assert "Differential privacy, of pictures" in told and "A test of the screening was not made." in told
    assert "2 held-out identities are members" in told and "could not be tried" not in told
    assert "No pictures are shown" in told and "biometric templates" in told and "No living person" not in told
    assert "No living person is concerned" in said(write(audit | {"procedural": True}))


def test_a_biometrician_finds_every_figure(audit, write):
    told = said(write(audit))
    for words_ in (
        "FNIR at FPIR 1 in 100",
        "its mean by identity chosen beforehand",
        "Lower bound on epsilon",
        "A sentence about power.",
        "The 20 most suspicious synthetic pictures of 30",
        "the control: it did see them",
        "Before and after the flagged pictures",
        "The verdict is the worst of all",
        "the rule of 30",
    ):
        assert words_ in told, words_
    (table, *_) = evidence.membership(audit)
    assert [name.value for name, _ in table.rows] == ["its mean", "the nearest"]
    assert [cell.value for cell in table.rows[0][1][:2]] == ["0.820", f"<{words.NARROW}0.001"]


def test_what_an_audit_lacks_is_said(audit, write):
    bare = {key: audit[key] for key in ("matcher", "match_rates", "verdict")}
    told = said(write(bare))
    for reason in ("no people whom it never saw", "were not searched for", "none was named", "all figures are of one"):
        assert reason in told
    assert "It is not known what these attacks could have found" in told
    assert "Left out, for this audit has no figures of them: sets and failures to acquire" in told
    assert "hold out people for the audit" in told and "Add a matcher of another make" in told
    told = said(write({}))
    assert "no verdict" in told and "No attack has figures" in told


def test_nothing_found_is_no_praise(audit, write):
    audit["verdict"] = {"level": NOT_DETECTED, "summary": "These attacks, at this power, detected no link."}
    told = said(write(audit))
    assert "Nothing was detected. That weighs as much as these attacks could have found" in told
    assert "Handle the dataset as" not in told and "A link was seen" not in told
    claims = told.replace("That the pictures are anonymous.", "")  # among what is not claimed
    assert not re.search(r"\banonym|\bsafe\b|differentially private|is private", claims)


def test_the_page_and_the_verdict_never_differ(audit, write):
    """Each finding on the dataset has a row, and the row reads as the finding does."""
    audit["verdict"]["findings"] = [
        {"name": "label recovery", "threat": "dataset", "level": NOT_DETECTED, "text": "x"},
        {"name": "membership", "threat": "dataset", "level": NOT_DETECTED, "text": "x"},
        {"name": "copies", "threat": "dataset", "level": "linkable", "text": "x"},
        {"name": "leaked pictures", "threat": "dataset", "level": tried.UNTESTED, "text": "x"},
        {"name": "a new one", "threat": "dataset", "level": "weakly linkable", "text": "by a new attack"},
    ]
    audit["membership"]["identity"] |= {"auc": 0.1, "interval": [0.0, 0.3]}
    found = {attack.finding[0]: attack for attack in tried.attacks(audit)}
    assert found["copies"].above and found["a new one"].above and found["leaked pictures"].above is None
    assert found["label recovery"].above is False and found["label recovery"].note == "see What decided"
    assert found["membership"].above is False and found["membership"].below
    told = said(write(audit))
    assert "below chance see limits" in told and "not tested" in told and "the worst of 5 findings" in told


def test_the_strongest_link_stands_in_where_no_rate_is_supported(audit):
    audit["screening"] |= {"rates": {}, "strongest": {"score": 0.5, "expected_by_chance": 1e-4, "p_value": 1e-4}}
    (row,) = [attack for attack in tried.attacks(audit) if attack.name == "single leaks"]
    assert row.above and row.found == "score 0.500" and row.chance == "0.0001 links so strong"


def test_a_dataset_is_handed_on_only_where_nothing_is_left(audit):
    def told() -> str:
        return " ".join(advice.to_do(audit))

    assert "did not end the link, by the matcher “second”" in told() and "Hand on" not in told()
    audit["remedy"]["comparison"][0] |= {"after": 30, "after_interval": [12.0, 41.0]}
    assert "Hand on what remains" in told()
    audit["remedy"]["unused_judge"] = False
    assert "Audit what remains" in told() and "Hand on" not in told()
    audit["remedy"] = {"impossible": "no rate is supported"}
    assert "On leaving pictures out: no rate is supported." in told()
    audit["remedy"] = {"rate": "1e-3", "excluded": 9}
    audit["screening"]["rates"]["1e-3"] |= {"links": 22}
    assert "of which chance would make about 20. " in told()
    audit["screening"]["copies"] = {}
    assert "of which chance would make about 20, and may make all of them" in told()


def test_what_could_not_be_tested_is_grey(audit, write):
    audit["verdict"] = {"level": tried.UNTESTED, "summary": "Nothing is known."}
    page = write(audit)
    assert 'class="verdict plain"' in page and "A link was seen" not in page and "Nothing was detected" not in page
    assert "until an audit can tell" in page


def test_few_mated_comparisons_have_no_d_sys(audit):
    audit["relations"]["authentic_synthetic"]["mated"] = 50
    rows = dict(next(evidence.matchers(audit)).rows)
    assert rows["D_sys, same label"][0].notes == ["too few mated comparisons"]


def thinned(tree, chance: random.Random):
    """A tree with numbers turned into null and dicts and lists emptied here and there, as strict JSON may hold it."""
    if isinstance(tree, dict | list) and chance.random() < 0.08:
        return type(tree)()
    if isinstance(tree, dict):
        return {key: thinned(value, chance) for key, value in tree.items()}
    return None if isinstance(tree, float) and chance.random() < 0.25 else tree


def check_words(thin):
    told = [*tried.not_tried(thin), *tried.strength(thin), *advice.to_do(thin)]
    told += [" ".join((a.name, a.tried, a.found, a.interval, a.chance, a.note)) for a in tried.attacks(thin)]
    for tables in TABLES:
        for table in tables(thin):
            assert all(len(cells) == len(table.head) - 1 for _, cells in table.rows)
            told += [note for _, cells in table.rows for cell in cells for note in (cell.value, *cell.notes)]
    assert all(told) and not any(re.search(r"None|nan|\binf\b", line) for line in told)


def test_any_part_may_be_missing_or_null(audit):
    """Sentences and tables come of whatever is left of an audit."""
    full = {key: value for key, value in audit.items() if key not in ("score_sets", "relations")}
    for seed in range(100):
        check_words(thinned(full, random.Random(seed)))


def test_pairs_are_shown_without_the_detail_of_the_authentic_picture(audit, write):
    rng = np.random.default_rng(0)
    authentic = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    shuffled = authentic.reshape(8, 8, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(64, 64, 3)[rng.permutation(64)]
    cells = authentic.reshape(8, 8, 8, 8, 3)
    mixed = np.ascontiguousarray(cells[:, ::-1, :, ::-1]).reshape(64, 64, 3)  # the same cells, other detail
    assert (privacy.blurred(authentic) == privacy.blurred(mixed)).all()
    assert (privacy.blurred(authentic) != privacy.blurred(shuffled)).any()
    page = write(audit, pairs=[{"synthetic": mixed, "authentic": authentic, "text": "picture 1301 & more"}])
    images = [
        np.asarray(Image.open(io.BytesIO(b64decode(data)))).astype(float)
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    ]
    sharp, soft = (np.abs(np.diff(image, axis=0)).mean() for image in images)
    assert soft < sharp / 10 and "picture 1301 &amp; more" in page
    copied = write(audit, pairs=[{"synthetic": mixed, "authentic": authentic, "text": "1", "copy": True}])
    assert len(set(re.findall(r'src="data:image/jpeg;base64,([^"]+)"', copied))) == 1  # both blurred, to the same
    assert "keep this page with the data" in said(page) and "It shows no face" not in page and not Outline(page).mute


def test_the_pipelines_report_links_to_it(make, tmp_path):
    workdir = make(epath.Path(tmp_path), ("privacy",))

    def linked() -> bool:
        report.run(CONFIG, workdir)
        return 'href="../privacy/index.html"' in (workdir / "report" / "index.html").read_text()

    assert not linked()
    privacy.write_page(workdir / "privacy", files.read_json(workdir / "privacy" / "audit.json"))
    assert linked()
