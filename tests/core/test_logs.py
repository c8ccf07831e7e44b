"""The log of a process, and a run's summary."""

import json

from absl import logging
from etils import epath

from sface_jax.core import logs
from sface_jax.core.progress import Progress, notes


def test_a_process_keeps_what_it_told_and_its_progress(tmp_path, capsys):
    before = list(logging.get_absl_logger().handlers)
    logs.to_file(epath.Path(tmp_path))
    try:
        logging.warning("something is odd")
        progress = Progress("gan", 10, interval=0.0)
        progress.update(1, loss=0.5)
        progress.close()
        kept = (tmp_path / "logs" / "process_0.log").read_text().splitlines()
    finally:
        for handler in set(logging.get_absl_logger().handlers) - set(before):
            logging.get_absl_logger().removeHandler(handler)
            notes.removeHandler(handler)
            handler.close()
    assert "process 0 of 1 on" in kept[0]
    assert kept[1].endswith("WARNING something is odd")
    assert "gan: 1/10 steps" in kept[2] and "loss 0.5" in kept[2] and "gan: 10/10 steps" in kept[3]
    assert "gan: 1/10 steps" in capsys.readouterr().err


def test_the_summary_tells_each_stage_that_ran():
    stages = {
        "gan": {"state": "finished", "wall_seconds": 3725.0, "result": {"speed": {"share_of_peak": 41.0}}},
        "synthesize": {"state": "running", "wall_seconds": 9.0, "result": {"pictures_per_second": 1234.5}},
        "old": {"state": "finished", "wall_seconds": 1.0},
    }
    head, gan, synthesize, report = logs.summary(json.loads(json.dumps(stages)), ["gan", "synthesize", "report"])
    assert head.split()[:3] == ["stage", "state", "time"]
    assert gan.split() == ["gan", "finished", "1h02m", "41", "%"]
    assert synthesize.split() == ["synthesize", "running", "9s", "1.23e+03"]
    assert report.split() == ["report", "new", "0s"]
