"""What the documents tell people to run exists and is understood; the files they name are there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from sface_jax.main import STAGES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "launch/README.md"]
CONFIGS = sorted(ROOT.glob("configs/*.py"))
# what a reader puts in place of these, where a number is wanted
STANDS_FOR = {"SEED": "0", "$seed": "0", "$n": "10", "$packs": "'lfw.bin', 'cfp_fp.bin'", "$B": "faces"}


def commands(text: str) -> list[str]:
    """The commands of the program in a text: whole lines, their continuations joined."""
    joined = re.sub(r"\s*\\+\n\s*", " ", text)
    found = re.findall(r"^\s*(?:[\w=]+ )*(?:(?:\S*python3?) -m sface_jax\.main|run) (--.+)$", joined, flags=re.M)
    found += re.findall(r"&& \S+ -m sface_jax\.main (--.+)$", joined, flags=re.M)
    return [re.sub(r"(`|\s+(#|\[)).*$", "", line) for line in found]


def parse(command: str, monkeypatch):
    """The config that a command gives."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", lock_config=True, flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_float("watchdog", None, "", flag_values=values)
    arguments = [
        re.sub("|".join(map(re.escape, STANDS_FOR)), lambda m: STANDS_FOR[m[0]], a) for a in shlex.split(command)
    ]
    monkeypatch.setattr("sys.argv", ["main", *arguments])  # where config flags look for overrides
    rest = values(["main", *arguments])
    assert rest == ["main"], f"not understood: {rest[1:]}"
    return values.config


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_commands_are_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = [line for line in commands(page.read_text()) if "<file>" not in line]
    if page.name == "README.md" or page.parent.name == "configs":
        assert found or page.parent.name == "launch", f"no command in {page}"
    for line in found:
        config = parse(line, monkeypatch)
        stages = [config[key] for key in config.stages] if "stages" in config else [config]
        assert all(stage.stage in STAGES for stage in stages), line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_that_a_page_links_to_are_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("config", ["study", "study_lfw"])
def test_figures_and_tables_of_the_study_come_from_their_command(config, tmp_path):
    (line,) = [line for line in commands((ROOT / f"configs/{config}.py").read_text()) if "config.results" in line]
    command = [sys.executable, "-m", "sface_jax.main", *shlex.split(line.replace("DIR", str(tmp_path)))]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    made, told = tmp_path / "study", (ROOT / "docs/RESULTS.md").read_text()
    for part in (made / "study.md").read_text().strip().split("\n\n"):
        assert part in told, f"{line} gives a table that RESULTS.md has not: {part}"
    assert list(made.glob("*.svg"))
    for figure in made.glob("*.svg"):
        (texts, curves), (texts_kept, curves_kept) = drawn(figure), drawn(ROOT / "docs/study" / figure.name)
        assert texts == texts_kept
        np.testing.assert_allclose(curves, curves_kept, atol=0.1)


def drawn(figure: Path) -> tuple[list[str], list[float]]:
    """What is written in an SVG, and where its curves run."""
    content = figure.read_text()
    paths = " ".join(re.findall(r'<path d="([^"]*)"', content))
    return re.findall(r"<text[^>]*>([^<]*)<", content), [float(number) for number in re.findall(r"[-\d.]+", paths)]
