"""The programs of training compiled for a TPU slice that need not be at hand, and what they cost there.

    python -m sface_jax.main --config=configs/compile.py --workdir=DIR

Needs: the compiler (`pip install '.[tpu]'`), no TPU; where there is none, JAX_PLATFORMS=cpu in the environment.
Expected, in some minutes: a table of operations (compiled, counted by hand, their ratio), memory of a chip and bytes of
collectives for generator, discriminator and each phase of the GAN's training, at the paper's size: 128 pixels, 10,572
classes, 32 pictures a chip. Also DIR/compile/compile.json. A program that does not fit the chip's memory ends the run
with a line that says so.

    python -m sface_jax.main --config=configs/compile.py:recognition --workdir=DIR

The same for a recogniser, iResNet-50 at 112 pixels on 256 chips: embedding, classifier and training step, with the
collectives of each and their largest arrays. Expected: DIR/compile/recognition.json. With a million classes:

    --config.classes=1000000 --config.topology=v5e:4x4

Every key of configs/gan.py (or of configs/classification.py) that shapes networks or steps may be set.
"""

from ml_collections import ConfigDict

from configs import classification, gan


def get_config(variant: str = "") -> ConfigDict:
    """Returns the GAN's paper configuration on 16 chips, or with variant "recognition" the recogniser's on 256."""
    if variant == "recognition":
        return _recognition()
    if variant:
        raise ValueError(f'configs/compile.py has no variant "{variant}": there is "recognition"')
    config = gan.get_config()
    config.stage = "compile"
    config.topology = "v5e:4x4"  # also "v6e:16x16"; "" is the devices at hand
    config.image_size = 128
    config.classes = 10572
    config.batch_per_device = 32
    return config


def _recognition() -> ConfigDict:
    config = classification.get_config()
    config.name = config.stage = "compile_recognition"
    config.topology = "v5e:16x16"
    config.dtype = "bfloat16"
    config.classes = 10572
    config.batch_per_device = 64
    return config
