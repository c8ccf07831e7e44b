"""The page and the summary: whole, self-contained, equal for equal inputs, and without real faces."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.report import report, words

CONFIG = ConfigDict({"stage": "report"})
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that tags are balanced; collects ids, sections, addresses and what readers without eyes are told."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.ids, self.text, self.addresses, self.mute = [], [], [], [], []
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[key] for key in ("href", "src", "xlink:href") if key in values]
        if (tag == "img" and not values.get("alt")) or (tag == "svg" and not values.get("aria-label")):
            self.mute.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def render(workdir: epath.Path, **config) -> tuple[str, dict]:
    report.run(ConfigDict({**CONFIG.to_dict(), **config}), workdir)
    return (workdir / "report" / "index.html").read_text(), files.read_json(workdir / "report" / "summary.json")


def test_whole_page_is_self_contained_and_small(workdir):
    page, summary = render(workdir)
    outline = Outline(page)
    assert len(page.encode()) < 3_000_000
    assert all(address.startswith(("#", "data:image/")) for address in outline.addresses)
    assert not re.search(r"<script|@import|url\((?!#)", page)
    assert len(outline.ids) == len(set(outline.ids))
    assert {address[1:] for address in outline.addresses if address[0] == "#"} <= set(outline.ids)
    assert not outline.mute
    assert str(workdir) not in page, "a report tells nothing of the machine's folders"
    assert page.count("<svg") == 11
    assert "did not run" not in page
    assert summary["verification"]["heldout"].keys() >= {"authentic", "classification", "distillation", "combined"}
    assert summary["verification"]["heldout"]["combined"].keys() == {"accuracy", "std", "tar_at_far_1e-3"}
    assert summary["wall_seconds"]["gan"] == 251.0
    assert summary["authentic"]["splits"]["train"]["identities"] == 64
    assert summary["synthetic"]["pictures"] == 1280
    assert summary["privacy"]["verdict"]["level"] == "linkable"
    json.dumps(summary, allow_nan=False)


def test_a_match_rate_without_a_finding_is_no_headline(make, tmp_path):
    workdir = make(epath.Path(tmp_path), ("privacy",))
    audit = files.read_json(workdir / "privacy" / "audit.json")
    audit["verdict"]["level"] = "weakly linkable"
    audit["verdict"]["findings"][0]["level"] = "not detected by these attacks at this power"
    files.write_json(workdir / "privacy" / "audit.json", audit)
    assert re.search(r'class="figure wordy">\s*Weakly linkable', render(workdir)[0])


def test_an_untested_dataset_and_no_flagged_picture_in_the_summary(make, tmp_path):
    workdir = make(epath.Path(tmp_path), ("recognition", "privacy"))
    audit = files.read_json(workdir / "privacy" / "audit.json")
    audit["verdict"] = {"level": "could not be tested", "summary": "Nothing is known."}
    audit["screening"] = {"p_value": 0.5, "suspicious": [{"picture": 1}], "copies": {"crowded": 0, "suspicious": [{}]}}
    audit["released"] = {"networks": {"combined": {"auc": 0.6}}}
    files.write_json(workdir / "privacy" / "audit.json", audit)
    page, summary = render(workdir)
    assert re.search(r'class="figure wordy">\s*Could not be tested', page)
    assert "which the audit attacks" in page and "not measured here" not in page
    assert summary["privacy"]["screening"] == {"p_value": 0.5, "copies": {"crowded": 0}}


def test_equal_inputs_give_equal_bytes(make, tmp_path):
    pages = [render(make(epath.Path(tmp_path / name), ("verify", "privacy")))[0] for name in ("a", "b")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("stages", [("verify", "privacy"), ("gan", "recognition")])
def test_parts_that_did_not_run_are_left_out(make, tmp_path, stages):
    page, summary = render(make(epath.Path(tmp_path), stages))
    Outline(page)
    assert ("the verify stage did not run" in page) == ("verify" not in stages)
    assert ("the privacy stage did not run" in page) == ("privacy" not in stages)
    assert bool(summary["privacy"]) == ("privacy" in stages)


def test_thin_json_is_enough(tmp_path):
    """Only what the contract promises at least, with numbers missing or null."""
    workdir = epath.Path(tmp_path)
    relation = {"eer": 0.3, "fmr100": None, "det": {"fmr": [], "fnmr": []}}
    audit = {
        "matcher": "m",
        "relations": {"authentic_synthetic": relation},
        "match_rates": {"authentic_synthetic": {"1e-3": {"rate": 0.2, "interval": [None, None]}}},
    }
    files.write_json(workdir / "privacy" / "audit.json", audit)
    bench = {"accuracy": 0.7, "std": None}
    files.write_json(workdir / "verification" / "mine.json", {"benchmarks": {"lfw <b>": bench}})
    page, _ = render(workdir)
    Outline(page)
    assert "lfw &lt;b&gt;" in page and "lfw <b>" not in page


def test_authentic_faces_need_to_be_procedural_or_asked_for(make, tmp_path):
    workdir = make(epath.Path(tmp_path), ("gan",))
    secret = pictures.encode_png(pictures.decode((workdir / "authentic" / "preview.png").read_bytes())[:40])
    (workdir / "authentic" / "preview.png").write_bytes(secret)
    (workdir / "gan" / "samples" / "reals_000000.png").write_bytes(secret)

    def inside(workdir, **config) -> bool:
        return base64.b64encode(secret).decode() in render(workdir, **config)[0]

    assert inside(workdir)
    manifest = files.read_json(workdir / "authentic" / "manifest.json")
    files.write_json(workdir / "authentic" / "manifest.json", manifest | {"procedural": False})
    assert not inside(workdir)
    assert inside(workdir, show_authentic=True)
    (workdir / "authentic" / "manifest.json").unlink()
    assert not inside(workdir)


def test_big_pictures_are_shrunk_and_broken_ones_left_out(make, tmp_path):
    workdir = make(epath.Path(tmp_path), ("gan",))
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    pictures.write_png(workdir / "synthetic" / "preview.png", noise)
    (workdir / "authentic" / "preview.png").write_bytes(b"\x89PNG cut short")
    page, _ = render(workdir)
    Outline(page)
    assert len(page.encode()) < 3_000_000


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(UserError, match="run a stage"):
        report.run(CONFIG, epath.Path(tmp_path))


def test_damaged_json_is_named(tmp_path):
    files.write_text(tmp_path / "privacy" / "audit.json", "{")
    with pytest.raises(UserError, match="audit.json"):
        report.run(CONFIG, epath.Path(tmp_path))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.percent(0.93456), "93.5\xa0%"),
        (words.percent(0.00075), "0.075\xa0%"),
        (words.percent(0), "0.0\xa0%"),
        (words.percent(float("nan")), "–"),
        (words.percent(None), "–"),
        (words.ratio(116.2), "116\xa0×"),
        (words.ratio(1.31), "1.3\xa0×"),
        (words.duration(251), "4 min 11 s"),
        (words.duration(3.21), "3.2 s"),
        (words.duration(7384), "2 h 3 min"),
        (words.one_in(1e-4), "1 in 10,000"),
    ],
)
def test_numbers_in_words(shown, expected):
    assert shown == expected


def test_recognisers_of_authentic_pictures_are_not_called_synthetic(tmp_path):
    folder = epath.Path(tmp_path)
    config = {"stage": "recognition", "dataset": "{workdir}/authentic"}
    files.write_json(folder / "config.json", {"classification": config, "combined": config})
    splits = {"train": {"identities": 3, "pictures": 30}}
    files.write_json(folder / "authentic" / "manifest.json", {"counts": {"splits": splits}})
    for name, accuracy in (("teacher", 0.97), ("classification", 0.8), ("combined", 0.9)):
        benchmarks = {"view1": {"accuracy": accuracy, "std": 0.01, "tar_at_far_1e-3": 0.5, "pairs": 9, "folds": 10}}
        files.write_json(folder / "verification" / f"{name}.json", {"network": name, "benchmarks": benchmarks})
    report.run(CONFIG, folder)
    page = (folder / "report" / "index.html").read_text()
    assert "How good are these recognisers?" in page and "(combined). Its teacher: 97.0" in page
    assert "authentic pictures, their labels and the teacher" in page and "A generator learned" not in page
    assert "trained on synthetic" not in page and "saw only synthetic" not in page


def test_each_recogniser_gets_a_card_with_its_own_figures(workdir):
    audit = files.read_json(workdir / "privacy" / "audit.json")
    found = {"auc": 0.753, "interval": [0.678, 0.816], "attacks": {"class_centre": {"auc": 0.595}}}
    files.write_json(workdir / "privacy" / "audit.json", audit | {"released": {"networks": {"combined": found}}})
    report.run(CONFIG, workdir)
    cards = {path.parent.name: path.read_text() for path in workdir.glob("recognition/*/README.md")}
    assert set(cards) == {"authentic", "classification", "distillation", "combined"}
    verified = files.read_json(workdir / "verification" / "combined.json")["benchmarks"]
    for values in verified.values():
        assert words.percent(values["accuracy"]).replace(words.UNIT, " %") in cards["combined"]
    assert "0.753 (0.678 – 0.816), with its classifier of 0.595" in cards["combined"]
    assert "the teacher `authentic`, weight 2500" in cards["combined"] and "Its teacher may" in cards["combined"]
    assert "No audit of this network" in cards["classification"] and "the teacher `" not in cards["classification"]
    assert "64 identities, 1,280 pictures, split `train` of the dataset `authentic`" in cards["authentic"]
    assert str(workdir) not in "".join(cards.values())
