"""Where nothing moves any more, the run ends; where something does, it does not."""

import threading
import time

import pytest
from etils import epath

from sface_jax.core import endings, watchdog


@pytest.fixture
def ended(monkeypatch):
    """What would have ended the process."""
    calls = []
    monkeypatch.setattr(endings, "end", lambda *arguments: calls.append(arguments))
    yield calls
    watchdog.stop()


def wait(calls, seconds):
    end = time.monotonic() + seconds
    while not calls and time.monotonic() < end:
        time.sleep(0.01)
    return calls


def test_a_run_that_stands_still_ends_with_where_it_was(tmp_path, ended):
    stuck = threading.Event()
    threading.Thread(target=stuck.wait, name="stuck", daemon=True).start()
    watchdog.start(1.0, epath.Path(tmp_path))
    watchdog.beat("gan", 123, 400)
    ((line, status),) = wait(ended, 10)
    stuck.set()
    assert status == 75
    assert line.startswith("gan: nothing has moved for 1s since 123 of 400: ") and "run the same command" in line
    stacks = (tmp_path / "hang_0.txt").read_text()
    assert "in wait" in stacks and "most recent call first" in stacks


def test_a_run_that_moves_goes_on(tmp_path, ended):
    watchdog.start(0.5, epath.Path(tmp_path))
    for step in range(10):
        watchdog.beat("gan", step, 10)
        time.sleep(0.1)
    watchdog.stop()
    assert not wait(ended, 1) and not list(tmp_path.iterdir())


def test_no_watch_is_kept_unless_wanted(tmp_path, ended):
    watchdog.start(0.0, epath.Path(tmp_path))
    watchdog.beat("gan")
    assert not wait(ended, 0.3)
