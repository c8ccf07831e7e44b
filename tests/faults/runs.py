"""The small runs that the campaign disturbs: --config=tests/faults/runs.py:STAGE."""

from ml_collections import ConfigDict

from tests.gan import toy as gan
from tests.recognition import toy as recognition
from tests.synthesis import small

STEPS = {"recognition": 18, "gan": 14}
"""Steps of a training."""

EVERY = {"recognition": 3, "gan": 3}
"""Steps between two checkpoints."""

UNITS = {"recognition": 18, "gan": 14, "synthesize": 12, "matching": 8}
"""What a stage counts to: steps, shards or parts."""


def get_config(stage: str) -> ConfigDict:
    """The config of a stage."""
    if stage == "recognition":
        config = recognition.config("{workdir}", steps=STEPS[stage], checkpoint_every=EVERY[stage], dropout=0.2)
    elif stage == "gan":
        config = gan.config(
            dataset="{workdir}", kimg=STEPS[stage] * 8 / 1000, checkpoint_every=EVERY[stage], sample_every=4, seed=1
        )
    elif stage == "synthesize":
        config = small.rejecting("{workdir}/synthetic", per_class=9, generator="none")
    else:
        config = ConfigDict({"stage": "matching", "queries": 4000, "gallery": 1500})
    return config
