"""A labelled synthetic dataset, drawn from a trained generator.

    python -m sface_jax.main --config=configs/synthesize.py --workdir=DIR

Needs: DIR/gan, written by configs/gan.py, or another folder of that kind in `--config.generator`.
Expected: DIR/synthetic, a TFDS directory with 60 pictures of every class of the generator (SFace-60: 10,572 classes,
634,320 pictures), manifest.json, a dataset card (README.md) and preview.png.
The run may be cut off at any time; the same command goes on with the first shard that is missing.

    python -m sface_jax.main --config=configs/synthesize.py:quickstart

Needs nothing: prepares the embedded faces, trains a small generator and draws from it, in a few minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns SFace-60, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("synthesize")
    if variant:
        raise ValueError(f'configs/synthesize.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "synthesize"
    config.generator = "{workdir}/gan"
    config.output = "{workdir}/synthetic"
    config.classes = 0  # how many, from label 0 on; 0 takes all
    config.per_class = 60
    config.strategy = "free"  # "free": a latent for each picture; "shared_seeds": from a pool that all classes share
    config.shared_seeds = 1000  # size of that pool
    config.psi = 1.0  # truncation; 1 is none
    config.noise = "random"  # "random" for each picture, "const" or "none"
    config.seed = 0
    config.batch_size = 64  # per device
    config.shard_size = 8192  # pictures in a file, and lost at most when the run is cut off
    config.png_folders = False  # also DIR/synthetic/png/<class>/<index>.png
    return config
