"""One cache of compiled programs for all tests and the processes they start: most of their time is compilation."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

OF_SEVERAL_PROCESSES = ("multi", "faults", "launch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`, keeps the tests of a file together, and those that start several processes out of each other's way."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group("processes" if folder in OF_SEVERAL_PROCESSES else str(item.path)))
