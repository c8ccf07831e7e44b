"""One cache of compiled programs for all tests and the processes they start: most of their time is compilation."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

OF_SEVERAL_PROCESSES = ("multi", "faults", "launch")


class Scheduling(LoadScopeScheduling):
    """With `-n`, the tests of a file together; those that start several processes one after another."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "processes" if Path(file).parts[1] in OF_SEVERAL_PROCESSES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """Takes the place of `--dist`."""
    return Scheduling(config, log)
