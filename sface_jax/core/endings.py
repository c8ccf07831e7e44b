"""How a process of a run ends before its work is done: asked to, because another one was lost, or by a mistake.

SIGTERM ends a train loop at a step that all processes agree on, see `asked_to_end`, and anything else at once. Whatever
ends one of several processes, the others end with the same status within seconds: who ends tells it through the
coordination service that JAX runs them by. Of a process that could not tell (SIGKILL, a machine that went away, one
that hangs) they hear from their collectives, which fail, or from the heartbeats of that service.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import errno
import math
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
from jax._src.distributed import global_state as joined

from sface_jax.core import cluster
from sface_jax.core.errors import ASKED, LOST, Interrupted

GRACE = 5.0
"""Seconds that the main thread is given to end by itself, before it is ended wherever it is."""

AGAIN = "run the same command to go on"

# In the coordination service. The first to end says so, with its status; who is there answers; and each says goodbye.
_FIRST, _HERE, _GONE = "sface/first", "sface/here", "sface/gone"
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # where JAX's preemption service puts it
_ROLL_CALL = 2.0
_DAY = 24 * 3600 * 1000

# What gloo, NCCL, gRPC and the coordination service say of a process that is gone.
_LOST = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|(?i:gloo|nccl|connection (closed|reset|refused)|socket closed|heartbeat"
    r"|coordination.?service|barrier.*(timed out|failed|error))",
    re.DOTALL,
)

# What file systems, TensorStore and object stores say of a trouble that passes, and runtimes of a device that is gone.
_PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.ENETDOWN, errno.ENETUNREACH}
    | {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED}
)
_STORE = frozenset({"gcsfs", "aiohttp", "requests", "urllib3", "google"})
_STORAGE = re.compile(
    r"(UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|HTTP (408|429|5\d\d)).*(kvstore|driver|gs://|object|local file)"
    rf"|os_error_code='({'|'.join(map(str, sorted(_PASSING)))})'",
    re.DOTALL,
)
_DEVICE = re.compile(r"(?i)CUDA_ERROR_(?!OUT_OF_MEMORY|INVALID)|uncorrectable ECC|core halted|device .*\blost\b")


class _State:
    """What the handlers and threads of this module know of each other."""

    loops = 0  # train loops at work, which see to SIGTERM themselves
    questions = 0  # of all train loops, whether SIGTERM has come
    leaving = False  # one of them has ended by an exception: the process is on its way out, and may still be saving
    asked = False  # `Interrupted` was raised: once is enough
    ending = threading.Lock()  # whoever has it has the last word
    first: tuple[int, int, str] | None = None  # process, status and line of the first to end
    heard = math.inf  # when this process heard of it
    lead_lost = False
    threads: list[threading.Thread] = []  # that wait for a word of the others
    abort_handler: object = None  # to be kept as long as the process lives


def handle() -> None:
    """Lets SIGTERM end this process outside train loops, with a line and status 143.

    It raises `Interrupted` in the main thread; where that does not come back to Python, the process ends after `GRACE`.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _unraisable
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def wait(_open: socket.socket = pythons) -> None:
        while received := ours.recv(1):
            if received[0] == signal.SIGTERM and not _busy():
                time.sleep(GRACE)
                _leave(_asked(), ASKED)

    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def follow() -> None:
    """Lets this process end when others of the run end; to be called once they have joined, `handle` before.

    From joining on it is JAX's preemption service that catches SIGTERM, and tells all processes.
    """
    if not jax.distributed.is_initialized():
        return
    _when(_FIRST, _end_too)
    _when(_NOTICE, _notified)
    _catch_aborts()


def part() -> None:
    """Parts from the other processes at the end of the work, once all of them are there."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
        # Python does not end well while threads wait in the runtime, nor after it has aborted
        ctypes.CDLL(None).signal(signal.SIGABRT, signal.SIG_DFL)
        for thread in _State.threads:
            thread.join(GRACE)


@contextlib.contextmanager
def asked_to_end() -> Iterator[Callable[[int], bool]]:
    """Gives a function that tells, after each step, whether SIGTERM has asked the run to end.

    Several processes are told so after the same step; all have to ask after every step.
    """

    def reached(step: int) -> bool:
        from jax.experimental import multihost_utils

        # JAX's service ends a run at the number after the highest that a process has asked with when SIGTERM comes, 0
        # at first: steps, which begin anew in each loop and not at 1 in a resumed one, may never come by that number.
        _State.questions += 1
        return multihost_utils.reached_preemption_sync_point(_State.questions)

    _State.loops += 1
    try:
        if jax.distributed.is_initialized():
            yield reached
        else:
            with _noted() as asked:
                yield lambda step: bool(asked)
    except BaseException:
        _State.leaving = True
        raise
    finally:
        _State.loops -= 1


@contextlib.contextmanager
def _noted() -> Iterator[list[int]]:
    """Gives a list that SIGTERM is put into; where it comes after the last step, who handled it before does so now."""
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    except ValueError:  # not the main thread: signals are somebody else's
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked:
        signal.raise_signal(signal.SIGTERM)


def is_lost(error: BaseException) -> bool:
    """Whether an error, or what led to it, says that another process of the run is gone."""
    if not is_distributed():
        return False
    return any(isinstance(one, RuntimeError | ValueError) and _LOST.search(str(one)) for one in led_to(error))


def what_is_lost(error: BaseException) -> str:
    """What failed, as an error or what led to it says: "the storage", "a device", or nothing of the kind.

    A restart may find them well: nothing is wrong with what was read or computed.
    """
    for one in led_to(error):
        if isinstance(one, OSError) and one.errno in _PASSING:
            return "the storage"
        if type(one).__module__.partition(".")[0] in _STORE:
            code = getattr(one, "code", getattr(one, "status", None))
            if not isinstance(code, int) or code >= 500 or code in (408, 429):
                return "the storage"
            continue
        if isinstance(one, jax.errors.JaxRuntimeError):
            if _DEVICE.search(str(one)):
                return "a device"
        elif isinstance(one, RuntimeError | ValueError) and _STORAGE.search(str(one)):
            return "the storage"
    return ""


def led_to(error: BaseException) -> list[BaseException]:
    """An error and what led to it, and to that."""
    led, one = [], error
    while one is not None and one not in led:  # an error may be its own cause
        led.append(one)
        one = one.__cause__ or one.__context__
    return led


def is_distributed() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def end(line: str, status: int) -> None:
    """Ends this process with a line and a status, and with it the others of the run.

    Args:
        line: what to print; where it is empty, it tells which process was lost.
        status: one of `sface_jax.core.errors`.
    """
    if is_distributed() or threading.current_thread() is not threading.main_thread():
        _leave(line, status)
    print(line, file=sys.stderr, flush=True)
    sys.exit(status)


def _busy() -> bool:
    """Whether a train loop is at work, or about to save what it did."""
    return _State.loops > 0 or _State.leaving


def _asked() -> str:
    return f"asked to end; {AGAIN}"


def _interrupt(number: int, frame: object) -> None:
    if not (_State.asked or _State.leaving or _State.ending.locked()):
        _State.asked = True
        raise Interrupted(_asked())


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """Raises again what a handler raised while the garbage collector or a destructor was at work, which is lost."""
    if told.exc_type is Interrupted:
        _State.asked = False
        threading.Timer(0.01, _signal_again).start()
    elif not _is_of_storage(told):
        sys.__unraisablehook__(told)


def _is_of_storage(told: sys.UnraisableHookArgs) -> bool:
    """Whether threads of TensorStore or coroutines of Orbax tell late of a save or read that failed before."""
    code = getattr(told.object, "cr_code", None)
    return str(told.exc_value) == "Event loop is closed" or "/orbax/" in getattr(code, "co_filename", "")


def _signal_again() -> None:
    if is_distributed():
        _thread.interrupt_main(signal.SIGTERM)  # only Python's handler: the signal itself is JAX's service's
    else:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


def _notified(notice: str) -> None:
    """SIGTERM came to one of the processes: ends this one, unless a train loop sees to it."""
    while _State.loops:
        time.sleep(0.1)
    if _State.leaving:
        return
    _signal_again()
    time.sleep(GRACE)
    _leave(_asked(), ASKED)


def _end_too(first: str) -> None:
    """Another process ends: so does this one, if need be in the middle of a collective."""
    process, status, line = first.split(" ", 2)
    _State.first, _State.heard = (int(process), int(status), line), time.monotonic()
    with contextlib.suppress(RuntimeError):
        joined.client.key_value_set(f"{_HERE}/{joined.process_id}", "")
    if int(process) == joined.process_id or (int(status) == ASKED and _busy()):
        return  # it ends by itself, once it has saved
    time.sleep(_ROLL_CALL if int(status) == LOST else GRACE)
    _leave("", LOST)


def _leave(line: str, status: int, heard: bool = True) -> None:
    """Ends the process for good: a regular exit would wait for the others, which may wait for this one."""
    if not _State.ending.acquire(blocking=False):
        threading.Event().wait()  # another thread is at it
    heard = heard and is_distributed()
    if heard:
        line, status = _agreed(line, status)
    print(line, file=sys.stderr, flush=True)
    if heard:
        _say_goodbye()
    for worker in multiprocessing.active_children():  # of the input pipeline; nobody else would end them
        worker.kill()
    os._exit(status)


def _agreed(line: str, status: int) -> tuple[str, int]:
    """Tells the others that this process ends. Where it ends because of another one, the line and status are that's."""
    own = joined.process_id

    def tell() -> tuple[int, int, str]:
        with contextlib.suppress(RuntimeError):  # another one was first
            joined.client.key_value_set(_FIRST, f"{own} {status} {line}")
        process, of, text = joined.client.blocking_key_value_get(_FIRST, 1000).split(" ", 2)
        return int(process), int(of), text

    try:
        first = _State.first = _State.first or cluster.within(_ROLL_CALL, tell)
    except (TimeoutError, RuntimeError):
        return line or f"lost {cluster.named([0])}: {AGAIN}", status
    if line:
        return line, status
    process, status, text = first
    if text:
        return f"{cluster.named([process])} ended: {text}", status
    time.sleep(min(max(_State.heard + _ROLL_CALL - time.monotonic(), 0.0), _ROLL_CALL))
    missing = [i for i in range(joined.num_processes) if i not in _said(_HERE)]
    return f"lost {cluster.named(missing) or 'the connection to another process'}: {AGAIN}", LOST


def _say_goodbye() -> None:
    """Process 0, whose end is that of the service, lets those that are there go first."""
    own, everybody = joined.process_id, set(range(joined.num_processes))
    began = min(_State.heard, time.monotonic())
    with contextlib.suppress(TimeoutError, RuntimeError):
        cluster.within(1.0, lambda: joined.client.key_value_set(f"{_GONE}/{own}", ""))
    while own == 0 and (waited := time.monotonic() - began) < GRACE + _ROLL_CALL:
        if (_said(_HERE) if waited > _ROLL_CALL else everybody) <= _said(_GONE):
            break
        time.sleep(0.05)


def _said(key: str) -> set[int]:
    """The processes that have left a word under a key."""
    try:
        words = cluster.within(1.0, lambda: joined.client.key_value_dir_get(key))
    except (TimeoutError, RuntimeError):
        return set()
    return {int(name.rpartition("/")[2]) for name, _ in words}


def _when(key: str, do: Callable[[str], None]) -> None:
    """Calls a function, in a thread of its own, with the value of a key as soon as it is there."""

    def wait() -> None:
        while True:
            try:
                value = joined.client.blocking_key_value_get(key, _DAY)
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" in str(error):
                    continue
                _State.lead_lost = "UNAVAILABLE" in str(error)
                return  # the run is over, or process 0 is gone, which this process is about to be told
            return do(value)

    _State.threads.append(threading.Thread(target=wait, name=key, daemon=True))
    _State.threads[-1].start()


def _catch_aborts() -> None:
    """Gives the abort by which JAX's runtime ends a process whose peers are gone a line and a status.

    It comes from a thread of the runtime, which holds on to its client meanwhile: a client that still answers tells
    that the abort has another reason, and then it takes its course.
    """

    def aborted(number: int) -> None:
        try:
            cluster.within(1.0, lambda: joined.client.key_value_try_get(_FIRST))
        except TimeoutError:
            if _State.first:
                process, status, text = _State.first
                _leave(f"{cluster.named([process])} ended: {text or 'it lost another one'}", status, heard=False)
            which = cluster.named([0]) if _State.lead_lost else "another process, of which the lines above tell"
            _leave(f"lost {which}: {AGAIN}", LOST, heard=False)
        except RuntimeError:
            pass

    # Python's own handlers wait for the main thread; an abort does not.
    _State.abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    ctypes.CDLL(None).signal(signal.SIGABRT, _State.abort_handler)
