"""Runs the preflight as one of several processes; tells what it gave, or how it ended.

    python preflight_worker.py WORKDIR SECONDS [KEY=VALUE ...]

WORKDIR may have "{process}" in it. STOP=n stops process n (SIGSTOP) when it comes to the all-reduce, VERSION=n lets it
have another version of JAX.
"""

import os
import signal
import sys
import time

import jax
from absl import logging
from etils import epath

from configs import preflight as config
from sface_jax.core import cluster, preflight
from sface_jax.core.errors import Lost, UserError

process = os.environ["SFACE_PROCESS_ID"]


def stop(*_: object) -> None:
    """Hangs, as a machine does that goes away."""
    os.kill(os.getpid(), signal.SIGSTOP)


def main() -> None:
    """See above."""
    logging.set_verbosity(logging.ERROR)
    preflight._VISIBLE = 2.0
    workdir, seconds, *keys = sys.argv[1:]
    asked = config.get_config()
    asked.seconds, asked.mebibytes = float(seconds), 1
    for key, _, value in (key.partition("=") for key in keys):
        asked[key] = type(asked[key])(value)
    if os.environ.get("STOP") == process:
        preflight._all_reduce = stop
    if os.environ.get("VERSION") == process:
        jax.__version__ = "0.0.1"
    try:
        cluster.join()
        print(preflight.run(asked, epath.Path(workdir.format(process=process))), flush=True)
    except (Lost, UserError) as error:
        print(type(error).__name__, error, flush=True)
        time.sleep(1)  # in `sface_jax.main`, `endings` sees to it that each gets to tell its line
        os._exit(75 if isinstance(error, Lost) else 2)


main()
