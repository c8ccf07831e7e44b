"""The recipe of a dataset: all that fixes its pictures, as its manifest and its card tell it."""

from __future__ import annotations

import hashlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from sface_jax.synthesis import sampling
from sface_jax.synthesis.rejection import Rejection
from sface_jax.synthesis.shards import Plan


def write(
    config: ConfigDict, plan: Plan, generator: nn.Module, variables: Any, facts: dict, rejection: Rejection | None
) -> dict[str, Any]:
    """Gathers all that fixes the pictures; free of paths and names of this machine, for it goes into the manifest.

    What plays no part is None, which is also what a key stands for that an older manifest lacks.
    """
    return {
        "seed": config.seed,
        "strategy": config.strategy,
        "shared_seeds": config.shared_seeds if config.strategy == "shared_seeds" else None,
        "centre_samples": config.centre_samples if sampling.STRATEGIES[config.strategy].centres else None,
        "psi": config.psi,
        "noise": config.noise,
        "rejection": None if rejection is None else _rejection(rejection),
        "classes": plan.classes,
        "per_class": plan.per_class,
        "pictures": plan.total,
        "shard_size": plan.shard_size,
        "image_size": generator.picture_size,
        "generator": {
            "step": facts["step"],
            "classes": generator.num_classes,
            "sha256": fingerprint(variables),
            "trained_on": facts.get("trained_on"),
        },
    }


def difference(begun: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Tells the first key in which two recipes differ, with both values; nothing where they agree."""
    for key, value in wanted.items():
        if begun.get(key) != value:
            return f"{key} ({begun.get(key)}, now {value})"
    return ""


def _rejection(rejection: Rejection) -> dict[str, Any]:
    authentic, synthetic = rejection.authentic, rejection.centres == "synthetic"
    return {
        "recognizer": {"sha256": fingerprint(rejection.embedder.variables)},
        "attempts": rejection.attempts,
        "min_class_similarity": rejection.conditions.min_class,
        "max_other_similarity": rejection.conditions.max_other,
        "max_authentic_similarity": rejection.conditions.max_authentic,
        "centres": rejection.centres,
        "centre_pictures": rejection.centre_pictures if synthetic else None,
        "authentic": authentic and {"identities": authentic.num_classes, "pictures": len(authentic)},
    }


def fingerprint(variables: Any) -> str:
    """SHA-256 over names, types, shapes and values of all arrays of a tree."""
    digest = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(variables)):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
