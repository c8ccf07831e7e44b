"""The processes of a run: how one finds the others."""

from __future__ import annotations

import os

import jax

from sface_jax.core.errors import UserError


def join() -> None:
    """Joins the other processes of the run, when the environment names any.

    `SFACE_COORDINATOR` (host:port), `SFACE_NUM_PROCESSES` and `SFACE_PROCESS_ID` name them explicitly;
    `SFACE_DISTRIBUTED=auto` leaves it to JAX's own detection (Slurm, TPU pods, Kubernetes). Without either
    the run has one process. Processes on CPUs talk through gloo.

    Raises:
        UserError: the three variables are not all set.
    """
    names = ("SFACE_COORDINATOR", "SFACE_NUM_PROCESSES", "SFACE_PROCESS_ID")
    given = [name for name in names if os.environ.get(name)]
    if not given and os.environ.get("SFACE_DISTRIBUTED") != "auto":
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if not given:
        jax.distributed.initialize()
        return
    if len(given) < len(names):
        missing = ", ".join(name for name in names if name not in given)
        raise UserError(f"a run of several processes needs {missing} beside {', '.join(given)}")
    jax.distributed.initialize(
        coordinator_address=os.environ["SFACE_COORDINATOR"],
        num_processes=int(os.environ["SFACE_NUM_PROCESSES"]),
        process_id=int(os.environ["SFACE_PROCESS_ID"]),
    )
