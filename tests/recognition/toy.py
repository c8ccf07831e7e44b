"""A training set held in memory, with the interface of `sface_jax.data.dataset.Split`, and a config that suits it."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from configs import combined
from sface_jax.data.dataset import Split


class Toy(Split):
    """Noisy pictures of a few colour patterns, one pattern a class; labels begin at 5, as a later split's do."""

    def __init__(self, classes: int = 4, per_class: int = 16):
        rng = np.random.default_rng(0)
        patterns = rng.uniform(60, 200, (classes, 2, 2, 3)).repeat(8, 1).repeat(8, 2)
        noise = rng.normal(0, 40, (per_class, classes, 16, 16, 3))
        self.pictures = np.clip(patterns + noise, 0, 255).astype(np.uint8).reshape(-1, 16, 16, 3)
        self.labels = np.tile(np.arange(5, 5 + classes, dtype=np.int32), per_class)
        self.name, self.image_size = "train", 16
        self._decoded = self.pictures

    def __len__(self) -> int:
        return len(self.pictures)


def config(folder: object, **changes: object) -> ConfigDict:
    """A narrow network on `Toy`, by its labels; `folder` stands for the dataset's."""
    small = combined.get_config()
    small.update(
        {
            "name": "toy",
            "dataset": str(folder),
            "network": "iresnet_narrow",
            "blocks": (1,),
            "widths": (8,),
            "strides": (2,),
            "embedding_size": 8,
            "dropout": 0.0,
            "image_size": 0,
            "head": "cosface(scale=16.0)",
            "distillation_weight": 0.0,
            "teacher": "",
            "steps": 20,
            "batch_size": 16,
            "learning_rate_batch": 16,
            "log_every": 1,
            "checkpoint_every": 10,
            "tensorboard": False,
            **changes,
        }
    )
    return small
