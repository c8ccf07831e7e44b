"""Who has come, before a run of several processes begins.

JAX's runtime waits for all processes too, but where some do not come it aborts without a word of which, and two runs
that were given the same port may share it unnoticed. So process 0 first calls the roll at the coordinator's address,
and clears it for the runtime once everybody is there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from sface_jax.core.errors import Lost, UserError

Named = Callable[[Iterable[int]], str]

_GRACE = 5.0  # seconds that a process gives the answer of process 0 to arrive after its own limit
_HASTE = 0.2  # between two tries
_LINE = 1 << 20  # bytes of a line at most


def call(address: str, count: int, process: int, host: str, run: str, seconds: float, named: Named) -> list[str]:
    """Waits until every process of the run has called process 0.

    Args:
        address: "host:port" of process 0.
        count: of the processes.
        process: which of them this one is.
        host: this machine's name, to be told to the others.
        run: what all processes of the run have in common and those of others have not.
        seconds: how long to wait.
        named: tells some processes, with their hosts where these are known beforehand.

    Returns:
        The host of each process.

    Raises:
        Lost: some have not come in time; each process that did is told which.
        UserError: the port is taken, or by another run, or the processes were told of different counts.
    """
    name, _, port = address.rpartition(":")
    if process == 0:
        return _lead(int(port), count, host, run, seconds, named)
    own = {"process": process, "of": count, "host": host, "run": run}
    return _follow(name.strip("[]"), int(port), own, seconds, named)


def _lead(port: int, count: int, host: str, run: str, seconds: float, named: Named) -> list[str]:
    end = time.monotonic() + seconds
    hosts, lines = {0: host}, {}
    twice = other = ""
    with contextlib.ExitStack() as closing:
        with _door(port) as door:
            door.settimeout(1.0)
            while time.monotonic() < end:
                for gone in [process for process, line in lines.items() if _has_gone(line)]:
                    del hosts[gone], lines[gone]
                if len(hosts) == count:
                    break
                try:
                    line = closing.enter_context(door.accept()[0])
                except TimeoutError:
                    continue
                caller = _read(line)
                if caller is None:  # whoever it was, not one of us
                    continue
                process = caller["process"]
                if caller["run"] != run:
                    who = f"process {process} of {caller['of']} on {caller['host']}"
                    told = f"{who} has other flags than process 0 on {host}"
                    other = f"; {told}"
                    _answer([line], {"wrong": f"{told}: start all alike, or two runs with two ports"})
                    continue
                if caller["of"] != count:
                    told = (
                        f"{named([process])} was told of {caller['of']} processes, process 0 of {count}: start all of "
                        "them with the same number"
                    )
                    _answer([line, *lines.values()], {"wrong": told})
                    raise UserError(told)
                if process in lines:  # or it was started again, and its end did not get through to here
                    twice = f"; process {process} came twice, from {hosts[process]} and {caller['host']}"
                hosts[process], lines[process] = caller["host"], line
        if len(hosts) < count:
            missing = named(i for i in range(count) if i not in hosts)
            told = f"{missing} did not come within {seconds:g} s{twice}{other}: see whether they started, and run again"
            _answer(lines.values(), {"lost": told})
            raise Lost(told)
        # the port is free again: the runtime may have it
        ordered = [hosts[i] for i in range(count)]
        _answer(lines.values(), {"hosts": ordered})
        return ordered


def _follow(host: str, port: int, own: dict[str, Any], seconds: float, named: Named) -> list[str]:
    end = time.monotonic() + seconds
    why = "nothing listens there"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 5.0)) as line:
                _send(line, own)
                answer = _receive(line, left + _GRACE)
        except socket.gaierror as error:
            answer, why = None, f"the name is not known here ({error.strerror})"
        except ConnectionRefusedError:
            answer, why = None, "nothing listens there"
        except OSError as error:
            answer, why = None, error.strerror or str(error)
        else:
            why = "what listens there is not process 0 of this run"
        match answer:
            case {"hosts": list(hosts)}:
                _wait_open(host, port, named)
                return hosts
            case {"lost": str(told)}:
                raise Lost(told)
            case {"wrong": str(told)}:
                raise UserError(told)
        time.sleep(_HASTE)
    raise Lost(f"{named([0])} did not answer at {host}:{port} within {seconds:g} s ({why}): see whether it started")


def _door(port: int) -> socket.socket:
    """Listens on a port that nobody else listens on; gRPC would share it."""
    end = time.monotonic() + 3.0  # a run that has just ended may still have it
    while True:
        try:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            return socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=dual)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            if error.errno == errno.EACCES or time.monotonic() > end:
                why = "in use on this machine" if error.errno == errno.EADDRINUSE else "only root's to open"
                raise UserError(
                    f"port {port} is {why}: end what has it, or set another one in SFACE_COORDINATOR (where JAX finds "
                    "the processes by itself, in JAX_COORDINATOR_PORT)"
                ) from error
        time.sleep(_HASTE)


def _wait_open(host: str, port: int, named: Named) -> None:
    """Waits until the runtime's own service listens where process 0 did."""
    end = time.monotonic() + 30.0
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5.0):
            return
        time.sleep(_HASTE / 4)
    raise Lost(f"{named([0])} came and went: see its log, and run again")


def _has_gone(line: socket.socket) -> bool:
    """Whether the other end was closed; nothing else comes from there."""
    line.setblocking(False)
    try:
        return not line.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _read(line: socket.socket) -> dict | None:
    match _receive(line, 5.0):
        case {"process": int(process), "of": int(), "host": str(), "run": str()} as caller if process > 0:
            return caller
    return None


def _receive(line: socket.socket, seconds: float) -> Any:
    """One line of JSON, or nothing where there is none."""
    line.settimeout(seconds)
    with contextlib.suppress(OSError, ValueError, RecursionError):  # what comes may not be JSON, or not even text
        with line.makefile("rb") as file:
            return json.loads(file.readline(_LINE))
    return None


def _send(line: socket.socket, message: dict) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


def _answer(lines: Iterable[socket.socket], message: dict) -> None:
    for line in lines:
        line.settimeout(5.0)
        with contextlib.suppress(OSError):  # it has gone: the runtime will find out
            _send(line, message)
