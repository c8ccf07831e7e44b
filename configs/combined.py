"""A recogniser trained on synthetic faces by their labels and by a teacher: SFace's combined strategy.

    python -m sface_jax.main --config=configs/combined.py --workdir=DIR

Needs: DIR/synthetic, written by configs/synthesize.py (SFace-60: 10,572 identities, 634,320 pictures), and a teacher
trained on authentic faces in DIR/recognition/authentic; or other folders in `--config.dataset` and `--config.teacher`.
Expected: DIR/recognition/combined; verified with configs/verify.py, the paper's recipe gives 99.13 % on LFW, where
labels alone (configs/classification.py) give 91.87 %. iResNet-50 for 64 epochs of 1,239 steps: about a day on 8 GPUs.

    python -m sface_jax.main --config=configs/combined.py:quickstart

Needs nothing: everything up to this network on the embedded faces, in some minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe, or with variant "quickstart" the quickstart up to this network."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("combined")
    if variant:
        raise ValueError(f'configs/combined.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "recognition"
    config.name = "combined"  # its folder under DIR/recognition
    config.seed = 0

    config.dataset = "{workdir}/synthetic"
    config.split = "train"
    config.workers = 0  # processes that decode pictures; 0: threads
    config.augmentations = ("flip",)  # of flip, translate, light

    config.network = "iresnet50"  # iresnet18, 34, 50, 100, 200, iresnet_narrow
    config.embedding_size = 512  # 0: the network's own
    config.dropout = 0.4
    config.squeeze_excitation = False
    config.dtype = "float32"  # of the body; bfloat16 on TPU and recent GPUs
    config.image_size = 112  # of the network's input; 0: the pictures'
    config.blocks = ()  # of each stage; (), () and 0 leave the network as its name says
    config.widths = ()
    config.strides = ()
    config.stem_stride = 0

    # loss = classification_weight * margin cross entropy + distillation_weight * mean squared error of embeddings
    config.classification_weight = 1.0
    config.head = "cosface"  # softmax, cosface, arcface
    config.scale = 64.0
    config.margin = 0.35
    config.distillation_weight = 10000.0
    config.teacher = "{workdir}/recognition/authentic"

    config.epochs = 64.0
    config.steps = 0  # above 0 it takes the place of epochs
    config.batch_size = 512  # over all devices
    config.learning_rate = 0.1  # at learning_rate_batch; linear in the batch
    config.learning_rate_batch = 512
    config.schedule = "milestones"  # or "cosine"
    config.milestones = (39, 47, 51)  # epochs, from 0, that are the first with a rate lower by the factor
    config.milestone_factor = 0.1
    config.warmup_epochs = 0.0
    config.momentum = 0.9
    config.weight_decay = 5e-4
    config.clip_norm = 5.0  # of the backbone's gradient

    config.mesh = ConfigDict({"data": -1, "model": 1})
    config.log_every = 100
    config.checkpoint_every = 2000
    config.keep_checkpoints = 2
    config.tensorboard = True
    return config
