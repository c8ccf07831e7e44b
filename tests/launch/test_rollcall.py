"""The roll call before a run of several processes: threads stand for processes."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core import rollcall
from sface_jax.core.errors import Lost, UserError

HOSTS = ["a", "b", "c", "d"]


def named(processes):
    return ", ".join(f"process {i} ({HOSTS[i]})" for i in processes)


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def call(port: int, process: int, count: int = 3, seconds: float = 20.0, host: str = "", run: str = "flags"):
    return rollcall.call(f"localhost:{port}", count, process, host or HOSTS[process], run, seconds, named)


def outcome(port: int, *calls: dict) -> list:
    """What each of some calls at the same time gives, or raises. Once process 0 knows all, the runtime listens."""

    def one(arguments: dict):
        time.sleep(arguments.pop("after", 0.0))
        try:
            result = call(port, **arguments)
        except (Lost, UserError) as error:
            return error
        if arguments["process"] == 0:
            with socket.create_server(("", port)) as runtime:
                runtime.settimeout(5)
                for _ in result[1:]:
                    runtime.accept()[0].close()
        return result

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_all_come_whoever_is_first_and_learn_each_others_hosts(port):
    assert outcome(port, {"process": 2}, {"process": 0}, {"process": 1}) == [["a", "b", "c"]] * 3
    assert outcome(port, {"process": 0, "count": 1}) == [["a"]]


def test_everybody_is_told_who_is_missing(port):
    for error in outcome(port, {"process": 0, "count": 4, "seconds": 1.5}, {"process": 2, "count": 4}):
        assert isinstance(error, Lost)
        assert "process 1 (b), process 3 (d) did not come within 1.5 s" in str(error)


def test_process_0_does_not_come(port):
    (error,) = outcome(port, {"process": 1, "seconds": 1.0})
    assert isinstance(error, Lost) and "process 0 (a) did not answer" in str(error) and "nothing listens" in str(error)
    with pytest.raises(Lost, match="name is not known"):
        rollcall.call("no-such-host.invalid:1", 2, 1, "b", "flags", 0.5, named)


def test_something_else_listens_at_the_port(port):
    with socket.socket() as other:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as gRPC does, which lets two servers share a port
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        other.bind(("", port))
        other.listen()
        lead, follower = outcome(port, {"process": 0}, {"process": 1, "seconds": 1.0})
    assert isinstance(lead, UserError) and f"port {port} is in use" in str(lead)
    assert isinstance(follower, Lost)


def test_processes_of_runs_of_other_sizes_do_not_mix(port):
    for error in outcome(port, {"process": 0}, {"process": 1, "count": 4}):
        assert isinstance(error, UserError)
        assert "process 1 (b) was told of 4 processes, process 0 of 3" in str(error)


def test_a_process_of_another_command_is_sent_away_and_the_run_waits_for_its_own(port):
    other = {"process": 1, "count": 2, "run": "other flags"}
    *ours, theirs = outcome(port, {"process": 0, "count": 2}, {"process": 1, "count": 2, "after": 1.0}, other)
    assert ours == [["a", "b"]] * 2
    assert isinstance(theirs, UserError) and "other flags than process 0 on a" in str(theirs)


def test_strangers_and_those_that_left_are_not_counted(port):
    def strangers():
        for words in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\x00\n",
            b"[]\n",
            b"",
            b'{"process": 1, "of": 3, "host": "x"}\n',
        ):
            with socket.create_connection(("localhost", port)) as line:
                line.sendall(words)

    threading.Timer(0.5, strangers).start()
    lead, follower = outcome(port, {"process": 0, "seconds": 3.0}, {"process": 2, "after": 1.5})
    assert isinstance(lead, Lost) and str(lead).startswith("process 1 (b) did not come")
    assert str(follower) == str(lead)


def test_two_that_claim_the_same_place_are_told_of(port):
    first, second = {"process": 1, "host": "x"}, {"process": 1, "host": "y"}
    lead, *_ = outcome(port, {"process": 0, "seconds": 2.0}, first | {"seconds": 1.9}, second | {"seconds": 1.9})
    assert "process 2 (c) did not come" in str(lead) and "process 1 came twice" in str(lead)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_word_of_a_stranger_does_harm(words):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(words)
        theirs.close()
        caller = rollcall._read(ours)
    assert caller is None or caller["process"] > 0
