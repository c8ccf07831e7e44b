"""A generator and discriminator of StyleGAN2-ADA for PyTorch, turned into one of ours; and back.

    python -m sface_jax.main --config=configs/convert.py --workdir=DIR --config.source=network.pkl

Needs: the network pickle that the official PyTorch code wrote (it is read without PyTorch, and nothing in it is
executed), or state dicts in one `.npz` or `.safetensors` file, their names under G_ema/ (or G/) and D/.
Expected: DIR/gan with network.json and a checkpoint, in seconds; configs/synthesize.py draws from it. The original is
in there to the last bit; activations are not clamped as the original's float16 layers do.

    python -m sface_jax.main --config=configs/convert.py --workdir=runs/export --config.source=DIR/gan \\
        --config.output=network.npz

Needs: a folder that configs/gan.py or this stage wrote.
Expected: network.npz (or .safetensors) with the state dicts G_ema/ and D/ under PyTorch's names, in its layouts.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the conversion of `source`, which has no default."""
    if variant:
        raise ValueError(f'configs/convert.py has no variants, so no "{variant}"')
    config = ConfigDict()
    config.stage = "convert"
    config.source = ""  # .pkl, .npz or .safetensors from PyTorch; or a `gan` folder of ours
    config.output = "{workdir}/gan"  # a new folder; or, where the source is ours, an .npz or .safetensors file
    config.checkpoint = "best"  # of a folder of ours: the best by the watched metric, where there is one; or "latest"
    config.discriminator = True  # False converts the generator alone: CIFAR's D, say, has another architecture
    config.mbstd_group_size = 4  # group of D's minibatch deviation, where the source does not tell (a pickle does)
    return config
