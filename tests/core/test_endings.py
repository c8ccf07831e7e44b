"""SIGTERM in one process, in and outside train loops, and which errors mean that another one is gone."""

import errno
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from sface_jax.core import endings

SCRIPT = """
import ctypes, sys, time
from sface_jax import main
from sface_jax.core import endings

class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)

def work(argv):
    endings.GRACE = 0.5
    endings.handle()
    if sys.argv[1] == "destructor":
        endings.GRACE = 60
        Slow()  # Python passes over what is raised in it
        time.sleep(60)
    print("ready", flush=True)
    if sys.argv[1] == "python":
        try:
            time.sleep(60)
        except Exception:
            print("taken for a failure", flush=True)
    mutex = ctypes.create_string_buffer(64)
    while True:  # the second lock never returns to Python
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

main.main = work
main._run(sys.argv)
"""


@pytest.mark.parametrize("where", ["python", "runtime", "destructor"])
def test_sigterm_ends_a_process_with_a_line_wherever_it_is(where):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    began = time.monotonic()
    process.terminate()
    out, told = process.communicate(timeout=30)
    assert process.returncode == 143 and time.monotonic() - began < 10
    assert told.decode().splitlines()[-1] == "asked to end; run the same command to go on" and not out


LAST = """
import atexit, os, sys
import jax
from sface_jax import main
from sface_jax.core.errors import UserError

class Late:
    def __del__(self, tell=os.write):
        tell(1, b"Python was taken down")

late = Late()
atexit.register(print, "bye", end="")

def work(argv):
    if sys.argv[1:] == ["mistake"]:
        raise UserError("a mistake")

main.main, main._parse_flags = work, lambda argv: main.flags.FLAGS(argv[:1]) + argv[1:]
main.entry()
"""


@pytest.mark.parametrize(("how", "status"), [("done", 0), ("mistake", 2)])
def test_python_is_not_taken_down_around_threads_of_libraries(how, status):
    ended = subprocess.run([sys.executable, "-c", LAST, how], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (status, "bye"), ended.stderr


def test_sigterm_in_a_loop_is_told_after_the_step(monkeypatch):
    passed_on = []
    monkeypatch.setattr(signal, "raise_signal", passed_on.append)
    with endings.asked_to_end() as asked:
        assert not asked(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked(2)
    assert passed_on == [signal.SIGTERM]  # the loop went on to its end all the same: whoever comes next is to know


def test_a_loop_that_was_not_asked_leaves_things_as_they_were():
    before = signal.getsignal(signal.SIGTERM)
    with endings.asked_to_end() as asked:
        assert not asked(1)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("error", "lost"), [
    (ValueError("UNKNOWN: Gloo all-reduce failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:22452"), True),
    (RuntimeError("UNAVAILABLE: Socket closed"), True),
    (RuntimeError("DEADLINE_EXCEEDED: Barrier timed out. Id: written::2"), True),
    (RuntimeError("INTERNAL: NCCL operation ncclAllReduce failed: remote process exited"), True),
    (RuntimeError("INVALID_ARGUMENT: shapes do not match"), False),
    (KeyError("heartbeat"), False),
])  # fmt: skip
def test_what_means_that_another_process_is_gone(error, lost, monkeypatch):
    assert not endings.is_lost(error)  # nobody is lost to one that is alone
    monkeypatch.setattr(endings.jax.distributed, "is_initialized", lambda: True)
    assert endings.is_lost(error) is lost
    wrapped = OSError("cannot save")
    wrapped.__cause__ = error
    assert endings.is_lost(wrapped) is lost


class HttpError(Exception):
    """As gcsfs has it."""

    __module__ = "gcsfs.retry"

    def __init__(self, code: int):
        self.code = code


@pytest.mark.parametrize(("error", "what"), [
    (OSError(errno.ESTALE, "Stale file handle", "/data/a"), "the storage"),
    (FileNotFoundError(errno.ENOENT, "No such file", "/data/a"), ""),
    (HttpError(503), "the storage"),
    (HttpError(403), ""),
    (ValueError("UNAVAILABLE: Error reading gs://bucket/a: CURL error"), "the storage"),
    (ValueError("DATA_LOSS: Error reading local file"), ""),
    (jax.errors.JaxRuntimeError("INTERNAL: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"), "a device"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17 bytes"), ""),
])  # fmt: skip
def test_what_is_told_of_storage_and_devices_that_fail(error, what):
    assert endings.what_is_lost(error) == what
    wrapped = RuntimeError("cannot save")
    wrapped.__context__ = error
    assert endings.what_is_lost(wrapped) == what


def test_once_a_loop_is_on_its_way_out_no_further_sigterm_cuts_its_saving_short(monkeypatch):
    monkeypatch.setattr(endings._State, "leaving", False)
    with pytest.raises(endings.Interrupted), endings.asked_to_end():
        raise endings.Interrupted("saved")
    endings._interrupt(signal.SIGTERM, None)
