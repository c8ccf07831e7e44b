"""How fast the GAN trains and draws on this machine.

    python -m sface_jax.main --config=configs/benchmark.py --workdir=DIR

Needs nothing. Times each phase of training and the generator, with networks and batches of the usual sizes and adaptive
augmentation on, and a matrix product between them, to tell the machine from the code. Expected: a table, and
DIR/benchmark/benchmark.json; on two CPU cores in about ten minutes. docs/RESULTS.md has figures.

Every key of configs/gan.py that shapes networks or phases may be set: on an accelerator, for instance

    --config.sizes='(128,)' --config.batch_sizes='(32,)' --config.dtype=bfloat16 --config.classes=10572
"""

from ml_collections import ConfigDict

from configs import gan


def get_config(variant: str = "") -> ConfigDict:
    """Returns networks of the paper's size at 32 and 64 pixels."""
    if variant:
        raise ValueError(f'configs/benchmark.py has no variants, so no "{variant}"')
    config = gan.get_config()
    config.stage = "benchmark"
    config.sizes = (32, 64)  # pixels
    config.batch_sizes = (16, 8)  # of each
    config.classes = 40
    config.rounds = 3
    config.dtype = "float32"
    config.augment_p = 0.5
    return config
