"""The generator's part of the page: curves of what was watched, the alarm of a collapse, the best checkpoint."""

from __future__ import annotations

import json
import re

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.gan import quality
from sface_jax.report import report, training

WATCHED = dict.fromkeys(quality.MEASURES, 0.5)


def write_log(workdir: epath.Path, *ratios: float | None, **scalars: float) -> None:
    """Losses at four steps; what is watched comes at every second of them, one line for each ratio."""
    lines = []
    for step in range(100, 500, 100):
        lines.append({"step": step, "d_loss": 1.3, "g_loss": 0.9, **scalars})
    for step, ratio in zip(range(200, 500, 200), ratios, strict=False):
        collapsed = float(quality.collapsed(np.nan if ratio is None else ratio))
        told = {**WATCHED, "spread_ratio": ratio, "collapsed": collapsed}
        lines.append({"step": step, **{f"watch/{name}": value for name, value in told.items()}})
    files.write_text(workdir / "gan" / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def render(workdir: epath.Path) -> str:
    files.write_json(workdir / "stages.json", {"gan": {"state": "running"}})
    report.run(ConfigDict({"stage": "report"}), workdir)
    return (workdir / "report" / "index.html").read_text()


def charts(page: str) -> set[str]:
    return set(re.findall(r'id="(gan-\w+)-', page))


def test_curves_of_what_was_logged_and_of_nothing_else(tmp_path):
    workdir = epath.Path(tmp_path)
    write_log(workdir)
    page = render(workdir)
    assert charts(page) == {"gan-losses"}
    assert "collapsed" not in page and "best checkpoint" not in page
    write_log(workdir, d_real_sign=0.4)
    assert charts(render(workdir)) == {"gan-losses", "gan-ada"}
    write_log(workdir, 0.9, 0.8, d_real_sign=0.4, ada_p=0.1, d_real=0.2, d_fake=-0.2)
    page = render(workdir)
    assert charts(page) == {chart.name for chart in training.GAN}
    assert "alarm below 0.4" in page and "two classes, authentic" in page


def test_alarm_of_a_collapse_that_has_not_passed(tmp_path):
    workdir = epath.Path(tmp_path)
    for ratios, alarmed in [((0.9, 0.23), True), ((0.23, 0.9), False), ((0.23, None), False), ((0.9,), False)]:
        write_log(workdir, *ratios)
        page = render(workdir)
        assert ("Spread within classes has collapsed" in page) == alarmed
        assert ("At step 400 the generated pictures of a class differ 23\xa0%" in page) == alarmed
    assert training.COLLAPSED_BELOW == quality.COLLAPSED_BELOW


def test_best_checkpoint(tmp_path):
    workdir = epath.Path(tmp_path)
    write_log(workdir, 0.9)
    for value, shown in ((0.012345, "0.0123"), (None, "–")):
        files.write_json(workdir / "gan" / "best.json", {"step": 12000, "metric": "frechet", "value": value})
        assert f"by Fréchet distance ({shown}), is that of step 12,000:" in render(workdir)


def test_waiting_for_pictures_is_told_beside_the_first_chart(tmp_path):
    workdir = epath.Path(tmp_path)
    write_log(workdir)
    assert "waited for pictures" not in render(workdir)
    write_log(workdir, input_bound_percent=12.3, d_real_sign=0.4)
    page = render(workdir)
    assert page.count("Share of the time that devices waited for pictures: 12\xa0%.") == 1
    log = {"loss": (np.arange(3.0), np.ones(3)), "input_bound_percent": (np.arange(3.0), np.array([90.0, 1.0, 3.0]))}
    log["classification_loss"] = log["loss"]
    (_, caption), *others = training.recognition_curves({"authentic": log, "combined": log})
    assert re.search(r"pictures: .+ 2\xa0%, .+ 2\xa0%\.$", caption) and not others
