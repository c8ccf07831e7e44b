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

    python -m sface_jax.main --config=configs/compile.py:matching --workdir=DIR

The same for the audit's engine: all of SFace-60 against all of CASIA-WebFace on 256 chips. Expected: memory of a chip,
collectives, the least time of the whole, and DIR/compile/matching.json.

Every key of configs/gan.py (or of configs/classification.py) that shapes networks or steps may be set.
"""

from ml_collections import ConfigDict

from configs import classification, gan


def get_config(variant: str = "") -> ConfigDict:
    """Returns the GAN's paper configuration on 16 chips, or the program of a variant on 256, see above."""
    if variant == "recognition":
        return _recognition()
    if variant == "matching":
        return _matching()
    if variant:
        raise ValueError(f'configs/compile.py has no variant "{variant}": there are "recognition" and "matching"')
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


def _matching() -> ConfigDict:
    config = ConfigDict()
    config.name = config.stage = "compile_matching"
    config.topology = "v5e:16x16"
    config.n = 634_320  # synthetic pictures
    config.m = 494_414  # authentic pictures
    config.dimensions = 512
    config.queries_per_device = 4096  # of the 16,384 that a process with four chips takes at a time
    config.tile = 8192  # pictures of the gallery at a time
    config.bins = 20_000
    config.thresholds = 3
    config.top_k = 10
    config.peak_tflops = 197.0  # of a chip in bfloat16: v5e 197, v6e 918
    config.peak_int8_tops = 394.0  # v5e 394, v6e 1836
    return config
