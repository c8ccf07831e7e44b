"""A recogniser trained on synthetic faces by their labels and by a teacher: SFace's combined strategy.

    python -m sface_jax.main --config=configs/combined.py --workdir=DIR

Needs: DIR/synthetic, written by configs/synthesize.py (SFace-60: 10,572 identities, 634,320 pictures), and a teacher
trained on authentic faces in DIR/recognition/authentic; or others in `--config.dataset` and `--config.teacher`.
Expected: DIR/recognition/combined; verified with configs/verify.py, the paper's recipe gives 99.13 % on LFW, where
labels alone (configs/classification.py) give 91.87 %. iResNet-50 for 64 epochs of 1,239 steps: docs/GUIDE.md tells
what that takes.

    python -m sface_jax.main --config=configs/combined.py:sface10 --workdir=DIR

The same on the first 10 pictures of each identity; also sface20, sface40 and sface60. Expected: more than labels alone
give, which configs/classification.py lists.

    python -m sface_jax.main --config=configs/combined.py:alpha --workdir=DIR --config.alpha=0.3

The weights as the paper's figure has them: alpha on the term of the labels, 1 - alpha on the teacher's. The released
recipe has 1 and 10,000. Expected: not measured. The teacher's term is a mean over 512 dimensions and never above 4/512,
so that with any alpha but a small one this is close to labels alone.

    python -m sface_jax.main --config=configs/combined.py:modern --workdir=DIR

What recipes for synthetic faces have taken up since: RandAugment with 4 layers at magnitude 16, a cosine schedule with
a warm-up over 40 epochs, bfloat16. Expected: not measured here.

    python -m sface_jax.main --config=configs/combined.py:quickstart

Needs nothing: everything up to this network on the embedded faces, in some minutes on a CPU.
"""

from ml_collections import ConfigDict

PARTS = {"sface10": 10, "sface20": 20, "sface40": 40, "sface60": 60}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe, or that of a variant: see above."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("combined")
    if variant == "alpha":
        config = recipe("combined")
        config.alpha = 0.5
        config.classification_weight = config.get_ref("alpha")
        config.distillation_weight = 1.0 - config.get_ref("alpha")
        return config
    return recipe("combined", variant, also=("alpha",))


def recipe(name: str, variant: str = "", also: tuple[str, ...] = ()) -> ConfigDict:
    """Returns the paper's recipe of the combined strategy with the changes of a variant that all strategies have.

    Args:
        name: the network's, and that of the config file.
        variant: "", one of `PARTS` or "modern".
        also: variants that the caller sees to, for the error line.

    Raises:
        ValueError: there is no such variant.
    """
    config = _paper()
    config.name = name
    if variant in PARTS:
        config.pictures_per_class = PARTS[variant]
    elif variant == "modern":
        config.augmentations = ("randaugment(layers=4, magnitude=16)", "flip")
        config.workers = 8
        config.epochs = 40.0
        config.schedule = "cosine"
        config.warmup_epochs = 2.0
        config.dtype = "bfloat16"
    elif variant:
        known = ", ".join(("quickstart", *PARTS, "modern", *also))
        raise ValueError(f'configs/{name}.py has no variant "{variant}": choose from {known}')
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.stage = "recognition"
    config.name = ""  # its folder under DIR/recognition
    config.seed = 0

    config.dataset = "{workdir}/synthetic"
    config.split = "train"
    config.classes = 0  # the first so many identities, from label 0 on; 0: all
    config.pictures_per_class = 0  # the first so many pictures of each; 0: all
    config.extra_datasets = ()  # folders whose pictures, of the same size, are mixed in
    config.extra_labels = "same"  # label i is one identity in all datasets; "apart": no identity is in two
    config.workers = 0  # processes that decode and augment pictures; 0: threads
    # Made on the device, in order: flip, translate, light, photometric, grey, crop, resized_crop, low_resolution,
    # erase; by the workers, before these: randaugment. Options are in recognition/augment.py and data/randaugment.py:
    # "flip(probability=0.5)", "randaugment(layers=4, magnitude=16)".
    config.augmentations = ("flip",)

    config.network = "iresnet50"  # iresnet18, 34, 50, 100, 200, iresnet_narrow, mobilefacenet, ..._large, ..._relu6
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
    # softmax, cosface, arcface, combined_margin, elastic_cosface, elastic_arcface, adaface, magface or curricularface,
    # with options where they are not to be the paper's: see sface_jax/recognition/methods.py.
    config.head = "cosface(scale=64.0, margin=0.35)"
    config.class_sample_rate = 1.0  # share of the identities in each step's softmax; below 1 for millions of them
    config.distillation_weight = 10000.0
    config.teacher = "{workdir}/recognition/authentic"  # a folder of a network, or its weights in a file
    config.teacher_cache = False  # keep its embeddings of the pictures and their mirror images on disk

    config.epochs = 64.0
    config.steps = 0  # above 0 it takes the place of epochs
    config.batch_size = 512  # over all devices
    # Parts in which a step takes its batch, one after another: a device holds batch_size / accumulate / devices
    # pictures at once. Set here and not found from the devices, so that results follow from the config, whatever the
    # devices. The statistics of batch normalisation, and of margins that keep some, are those of a part.
    config.accumulate = 1
    config.fsdp = False  # keep backbone and momentum in shares over the devices: less memory, the same results
    config.learning_rate = 0.1  # at learning_rate_batch; linear in the batch
    config.learning_rate_batch = 512
    config.schedule = "milestones"  # or "cosine", "polynomial"
    config.milestones = (39, 47, 51)  # epochs, from 0, that are the first with a rate lower by the factor
    config.milestone_factor = 0.1
    config.warmup_epochs = 0.0
    config.momentum = 0.9
    config.weight_decay = 5e-4
    config.clip_norm = 5.0  # of the backbone's gradient

    # Every so many steps the network's accuracy on benchmarks (entries of configs/verify.py) goes to metrics.jsonl; 0
    # never looks. Nothing is chosen by it: whoever stops or picks by a benchmark should report another one.
    config.verify_every = 0
    config.verify_benchmarks = ("heldout",)

    # model = 1: the classes are spread over all devices. With m > 1 over m of them, in as many copies as there are
    # groups of m: moves less between devices where the batch is large; see docs/SCALE.md.
    config.mesh = ConfigDict({"data": -1, "model": 1})
    config.log_every = 100
    config.checkpoint_every = 2000
    config.keep_checkpoints = 2
    config.profile = 0  # steps to trace, after the first logged one
    config.tensorboard = True
    return config
