"""The class-conditional StyleGAN2 generator, trained on the authentic dataset.

    python -m sface_jax.main --config=configs/gan.py --workdir=DIR

Needs: DIR/authentic, a dataset made by configs/prepare.py at a power-of-two size (or --config.dataset=FOLDER), and
accelerators: this is the size of the paper, 128 pixels and 25 million of them shown.
Expected: DIR/gan with checkpoints, the best of them in best/, metrics.jsonl, and samples/*.png, where each row is one
identity that should stay itself along the row while everything else varies.

A dataset of 112 pixels: --config.crop=8 draws 128 and cuts 8 off each side. Watch with a recogniser rather than with
pixels: --config.watch_network=DIR/recognition/authentic. A batch of other than 32, or other than 128 pixels: set
r1_gamma and ema_kimg anew, by the rules beside them.

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
    config.crop = 0  # pixels cut off each side of what is drawn: 8 for pictures of 112, drawn at 128
    config.dtype = "bfloat16"  # of the convolutions; everything else is float32

    # Training, as StyleGAN2-ADA's "auto" settles it for 128 pixels and a batch of 32.
    config.kimg = 25000.0  # thousands of authentic pictures shown
    config.batch_size = 32  # global
    # Parts in which a step takes its batch, one after another: a device holds batch_size / accumulate / devices
    # pictures at once. Set here and not found from the devices, so that results follow from the config, whatever the
    # devices. The minibatch's standard deviation and the mean of the path lengths are those of a part.
    config.accumulate = 1
    config.fsdp = False  # keep networks and optimisers in shares over the devices: less memory, the same results
    config.mirror = True  # show half of the pictures mirrored
    config.generator_learning_rate = 0.0025
    config.discriminator_learning_rate = 0.0025
    config.beta1 = 0.0
    config.beta2 = 0.99
    config.r1_gamma = 0.1024  # 0.0002 * image_size^2 / batch_size
    config.r1_interval = 16
    config.path_length_weight = 2.0  # 0 leaves the regulariser out
    config.path_length_interval = 4
    config.path_length_decay = 0.01
    config.path_length_shrink = 2  # its batch is batch_size / this
    config.style_mixing = 0.9  # share of pictures with two latents
    config.w_avg_beta = 0.995
    config.ema_kimg = 10.0  # half-life in thousands of pictures: 10 * batch_size / 32
    config.ema_rampup = 0.05

    # Adaptive augmentation: "" (none), "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", or transforms as in "xint,scale,hue".
    config.augment = "bgc"
    config.augment_p = 0.0  # where its probability starts
    config.ada_target = 0.6  # of the mean sign of D on authentic pictures; 0 keeps the probability as it is
    config.ada_interval = 4
    config.ada_kimg = 500.0  # thousands of pictures in which the probability may go from 0 to 1

    # Off by default. The label fades in between these two points of the training (arXiv 2201.06578): helps where
    # conditional training collapses within classes.
    config.transition_start_kimg = 0.0
    config.transition_end_kimg = 0.0  # 0: conditional from the start
    # A recogniser takes part: pictures of one class alike to it, of two classes less than this cosine (IDnet's idea).
    # The first part works on pairs of one class, of which a batch much smaller than the number of classes has few.
    config.separation_weight = 0.0
    config.separation_margin = 0.2
    config.separation_network = "{workdir}/recognition/authentic"

    # What looks at the pictures, beside those of the training set: a recogniser's folder, Inception weights for FID
    # (.npz, .safetensors), or "pixels", which needs nothing and sees little; "" is nothing. All but pixels also keep
    # the best checkpoint, by "frechet", "kernel", "precision", "recall", "label_similarity" or "label_rank1".
    config.watch_network = "pixels"
    config.watch_metric = "frechet"
    config.watch_every = 5000
    config.watch_classes = 200
    config.watch_per_class = 20

    config.log_every = 100
    config.sample_every = 5000
    config.checkpoint_every = 5000
    config.keep_checkpoints = 2
    config.profile = 0  # steps to trace, after the first logged one
    config.tensorboard = False
    return config
