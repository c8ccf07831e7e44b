"""How a process learns of the others: what the environment may say, and what is told where it is wrong."""

import pytest

from sface_jax.core import cluster
from sface_jax.core.errors import UserError

GOOD = {"SFACE_COORDINATOR": "node1:8476", "SFACE_NUM_PROCESSES": "4", "SFACE_PROCESS_ID": "3"}


@pytest.fixture
def join(monkeypatch):
    """Joins with an environment, as far as the roll call; gives what it was called with."""

    def run(**environment: str):
        for name in ("SFACE_DISTRIBUTED", "SFACE_HOSTS", "TPU_WORKER_HOSTNAMES", "SLURM_JOB_ID", *GOOD):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        called = []

        def call(address, count, process, host, run, seconds, named):
            called.append((address, count, process, seconds, named([0, count - 1])))
            raise InterruptedError

        monkeypatch.setattr(cluster.rollcall, "call", call)
        try:
            cluster.join()
        except InterruptedError:
            pass
        return called[0] if called else None

    return run


def test_the_environment_is_understood(join):
    assert join() is None
    assert join(**GOOD) == ("node1:8476", 4, 3, 300.0, "process 0, process 3")
    hosts = {"SFACE_HOSTS": "n1, n1,n2,n2", "SFACE_JOIN_SECONDS": "2.5"}
    assert join(**GOOD, **hosts) == ("node1:8476", 4, 3, 2.5, "process 0 (n1), process 3 (n2)")
    assert join(**GOOD, TPU_WORKER_HOSTNAMES="t0,t1,t2,t3")[-1] == "process 0 (t0), process 3 (t3)"
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "8"}
    slurm |= {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SFACE_DISTRIBUTED": "auto"}
    assert join(**slurm)[:3] == ("n1:61447", 8, 5)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"SFACE_NUM_PROCESSES": "four"}, "SFACE_NUM_PROCESSES='four' is not a whole number"),
        ({"SFACE_NUM_PROCESSES": "0"}, "SFACE_NUM_PROCESSES=0: "),
        ({"SFACE_PROCESS_ID": "4"}, "SFACE_PROCESS_ID=4 is not one of the 4 processes"),
        ({"SFACE_PROCESS_ID": "-1"}, "SFACE_PROCESS_ID=-1 is not one of"),
        ({"SFACE_PROCESS_ID": ""}, "needs SFACE_PROCESS_ID beside"),
        ({"SFACE_COORDINATOR": "node1"}, "write it as host:port"),
        ({"SFACE_COORDINATOR": "node1:"}, "write it as host:port"),
        ({"SFACE_COORDINATOR": "node1:99999"}, "write it as host:port"),
        ({"SFACE_HOSTS": "n1,n2"}, "SFACE_HOSTS names 2 hosts for 4 processes"),
        ({"SFACE_JOIN_SECONDS": "soon"}, "SFACE_JOIN_SECONDS='soon'"),
        ({"SFACE_HEARTBEAT_SECONDS": "-1"}, "SFACE_HEARTBEAT_SECONDS='-1'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(join, wrong, line):
    with pytest.raises(UserError) as error:
        join(**GOOD | wrong)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_auto_is_the_only_word_and_needs_a_cluster(join):
    with pytest.raises(UserError, match="can be auto"):
        join(SFACE_DISTRIBUTED="1")
    with pytest.raises(UserError, match="finds no Slurm step"):
        join(SFACE_DISTRIBUTED="auto")
