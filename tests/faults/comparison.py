"""The audit's comparison of two sets as a stage of its own, so that the campaign can disturb it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.privacy import matching


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Compares random sets in 8 parts, and writes a digest of what was found to `found.json`."""
    matching.PART = 512
    rng = np.random.default_rng(0)
    query, gallery = (rng.standard_normal((n, 32), np.float32) for n in (config.queries, config.gallery))
    labels = [rng.integers(0, 50, n) for n in (config.queries, config.gallery)]
    options = {"thresholds": (0.3, 0.1), "tile": 1024, "folder": workdir / "parts", "progress": "matching"}
    found = matching.match(query, gallery, *labels, **options)
    arrays = {name: np.ascontiguousarray(array) for name, array in found._asdict().items()}
    if mesh.is_lead():
        digests = {name: hashlib.sha256(array.data).hexdigest() for name, array in arrays.items()}
        files.write_json(workdir / "found.json", digests)
    return {}
