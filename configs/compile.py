"""The GAN's programs compiled for a TPU slice that need not be at hand, and what they cost there.

    python -m sface_jax.main --config=configs/compile.py --workdir=DIR

Needs: the compiler (`pip install '.[tpu]'`), no TPU; where there is none, JAX_PLATFORMS=cpu in the environment.
Expected, in some minutes: a table of operations (compiled, counted by hand, their ratio), memory of a chip and bytes of
collectives for generator, discriminator and each phase of training, at the paper's size: 128 pixels, 10,572 classes, 32
pictures a chip. Also DIR/compile/compile.json. A program that does not fit the chip's memory ends the run with a line
that says so.

Every key of configs/gan.py that shapes networks or phases may be set.
"""

from ml_collections import ConfigDict

from configs import gan


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's configuration on a TPU v5e slice of 16 chips."""
    if variant:
        raise ValueError(f'configs/compile.py has no variants, so no "{variant}"')
    config = gan.get_config()
    config.stage = "compile"
    config.topology = "v5e:4x4"  # also "v6e:16x16"; "" is the devices at hand
    config.image_size = 128
    config.classes = 10572
    config.batch_per_device = 32
    return config
