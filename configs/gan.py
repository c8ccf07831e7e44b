"""The class-conditional StyleGAN2 generator, trained on the authentic dataset.

    python -m sface_jax.main --config=configs/gan.py --workdir=DIR

Needs: DIR/authentic, a dataset made by configs/prepare.py at a power-of-two size (or --config.dataset=FOLDER), and
accelerators: this is the size of the paper, 128 pixels and 25 million of them shown.
Expected: DIR/gan with checkpoints, metrics.jsonl, and samples/*.png, where each row is one identity that should stay
itself along the row while everything else varies.

    python -m sface_jax.main --config=configs/gan.py:quickstart

Needs nothing: the embedded procedural faces at 32 pixels, minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the paper's size, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("gan")
    if variant:
        raise ValueError(f'configs/gan.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "gan"
    config.dataset = "{workdir}/authentic"
    config.split = "train"
    config.seed = 0
    config.mesh = ConfigDict({"data": -1, "model": 1})
    config.workers = 0

    # Networks. Feature maps at resolution r: channel_base / r, at most channel_max.
    config.z_dim = 512
    config.w_dim = 512
    config.g_mapping_layers = 2
    config.d_mapping_layers = 8
    config.channel_base = 16384
    config.d_channel_base = 16384
    config.channel_max = 512
    config.mbstd_group_size = 4
    config.dtype = "bfloat16"  # of the convolutions; everything else is float32

    # Training, as StyleGAN2-ADA's "auto" settles it for 128 pixels and a batch of 32.
    config.kimg = 25000.0  # thousands of authentic pictures shown
    config.batch_size = 32  # global
    config.mirror = True  # show half of the pictures mirrored
    config.generator_learning_rate = 0.0025
    config.discriminator_learning_rate = 0.0025
    config.beta1 = 0.0
    config.beta2 = 0.99
    config.r1_gamma = 0.1024  # 0.0002 * image_size^2 / batch_size
    config.r1_interval = 16
    config.w_avg_beta = 0.995
    config.ema_kimg = 10.0
    config.ema_rampup = 0.05

    config.log_every = 100
    config.sample_every = 5000
    config.checkpoint_every = 5000
    config.keep_checkpoints = 2
    config.tensorboard = False
    return config
