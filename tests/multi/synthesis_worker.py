"""Draws the small synthetic dataset: `python -m tests.multi.synthesis_worker FOLDER`. Prints the stage's result."""

import json
import sys

import jax
from etils import epath

from sface_jax.core import mesh
from sface_jax.gan import network
from sface_jax.synthesis import generate
from tests.synthesis import small

if __name__ == "__main__":
    mesh.initialize_distributed()
    network.load = small.load
    result = generate.run(small.config(sys.argv[1]), epath.Path(sys.argv[1]).parent)
    print(json.dumps({**result, "devices": jax.local_device_count()}))
