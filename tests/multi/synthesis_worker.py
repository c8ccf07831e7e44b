"""Draws the small synthetic dataset without and with rejection: `python -m tests.multi.synthesis_worker FOLDER`.

Writes FOLDER/plain and FOLDER/rejecting, and prints the second result.
"""

import json
import sys

import jax
from etils import epath

from sface_jax.core import cluster
from sface_jax.gan import network
from sface_jax.synthesis import generate
from tests.synthesis import small

if __name__ == "__main__":
    cluster.join()
    network.load = small.load
    folder = epath.Path(sys.argv[1])
    generate.run(small.config(folder / "plain"), folder)
    result = generate.run(small.rejecting(folder / "rejecting"), folder, small.open_embedder)
    print(json.dumps({**result, "devices": jax.local_device_count()}))
