"""Compares two sets: `... matching_worker FOLDER`; tells a hash of each result: all must be equal to the last bit."""

import hashlib
import json
import sys

import jax
import numpy as np

from sface_jax.core import cluster
from sface_jax.privacy import matching


def main() -> None:
    cluster.join()
    matching.PART = 2048  # so that there are several parts, and the last of them is not whole
    rng = np.random.default_rng(0)
    query, gallery = (rng.standard_normal((n, 64), np.float32) for n in (5000, 3000))
    of_query, of_gallery = (rng.integers(0, 50, n) for n in (5000, 3000))
    options = {"thresholds": (0.3, 0.1), "folder": sys.argv[1]}
    told = {}
    for tile in (1024, 4096):
        found = matching.match(query, gallery, of_query, of_gallery, tile=tile, **options)
        told[f"tile {tile}"] = _hashes(found)
    told["within"] = _hashes(matching.match(query, query, of_query, of_query, exclude_self=True))
    told["few queries"] = _hashes(matching.match(query[:10], gallery))  # fewer parts than processes
    print(json.dumps({"devices": jax.device_count(), "told": told}))


def _hashes(found: matching.Matches) -> dict[str, str]:
    arrays = {name: np.ascontiguousarray(array) for name, array in found._asdict().items()}
    return {name: f"{x.dtype} {x.shape} {hashlib.sha256(x.data).hexdigest()}" for name, x in arrays.items()}


if __name__ == "__main__":
    main()
