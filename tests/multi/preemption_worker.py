"""A resumed loop whose process 1 gets SIGTERM before its first step: `preemption_worker FIRST LAST`.

Prints after which step the loop was told, or null.
"""

import json
import os
import signal
import sys
import time

import jax
from jax.experimental import multihost_utils

from sface_jax.core import cluster, endings


def main() -> None:
    endings.handle()
    cluster.join()
    endings.follow()
    told = None
    with endings.asked_to_end() as asked:
        if jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)  # the service looks for signals once a second
        for step in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
            multihost_utils.sync_global_devices(f"step {step}")
            if asked(step):
                told = step
                break
    print(json.dumps(told), flush=True)
    os._exit(0)  # a run that was asked to end would end with 143


if __name__ == "__main__":
    main()
