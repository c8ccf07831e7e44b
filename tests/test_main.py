"""The command line: mistakes end with one line and status 2, and leave nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def run(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sface_jax.main", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def refused(*arguments: object) -> str:
    ended = run(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(("arguments", "told"), [
    (["--config=configs/gan.py", "--config.batch_sise=4"], "no key 'batch_sise': did you mean 'batch_size'?"),
    (["--config=configs/gan.py", "--config.mesh.dat=4"], "no key 'dat': did you mean 'data'?"),
    (["--config=configs/gan.py", "--config.batch_size=many"], "batch_size"),
    (["--config", "configs/gam.py"], "no config file 'configs/gam.py'"),
    (["--config=README.md"], "no config file 'README.md'"),
    (["--config=configs/gan.py", "--config.stage=gam"], "no stage 'gam': did you mean 'gan'?"),
    (["--config=configs/gan.py", "--workdir=README.md"], "README.md"),
    (["--config=configs/gam.py"], "no config file 'configs/gam.py'"),
    (["--config=configs/gan.py:quick"], 'no variant "quick"'),
    (["--config=configs/gan.py", "--wrokdir=x"], "workdir"),
    ([], "give one, e.g. --config=configs/quickstart.py"),
])  # fmt: skip
def test_a_mistaken_command_is_told_in_one_line(arguments, told):
    line = refused(*arguments)
    assert line.startswith("error: ") and told in line


def test_the_command_people_type_names_what_to_set(tmp_path):
    line = refused("--config=configs/combined.py", f"--workdir={tmp_path}")
    assert "--config.dataset" in line and "--config.teacher" in line and "configs/combined.py:quickstart" in line
    assert {path.name for path in tmp_path.iterdir()} <= {"config.json", "stages.json", "logs"}


def test_a_folder_of_pictures_is_prepared_once_and_bound_to_its_config(tmp_path):
    for person in range(6):
        for picture in range(4):
            path = tmp_path / "faces" / f"p{person}" / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 50), (40 * person, 60 * picture, 99)).save(path)
    command = [
        "--config=configs/prepare.py",
        f"--workdir={tmp_path}/run",
        f"--config.source={tmp_path}/faces",
        "--config.image_size=32",
        "--config.heldout_identities=2",
        "--config.matcher_identities=0",
    ]
    first = run(*command)
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "run/stages.json").read_text())["prepare"]["state"] == "finished"
    again = run(*command)
    assert again.returncode == 0 and "skipped" in again.stderr
    assert "image_size=32, now it is 64" in refused(*command, "--config.image_size=64")


def test_the_tiny_quickstart_ends_with_a_report_and_a_summary(tmp_path):
    ended = run("--config=configs/quickstart.py:tiny", f"--workdir={tmp_path}", timeout=900)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "report/index.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert set(summary) >= {"authentic", "gan", "synthetic", "verification", "privacy", "wall_seconds"}
    assert "What do these synthetic" in (tmp_path / "privacy/index.html").read_text()
    networks = summary["verification"]["heldout"]
    assert set(networks) >= {"authentic", "teacher", "classification", "distillation", "combined"}
    for figures in networks.values():
        assert 0 <= figures["accuracy"] <= 1 and "std" in figures and "tar_at_far_1e-3" in figures
    again = run("--config=configs/quickstart.py:tiny", f"--workdir={tmp_path}")
    assert again.returncode == 0 and again.stderr.count("skipped") == 8  # verify, privacy and report run again
