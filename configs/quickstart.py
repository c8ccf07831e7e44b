"""The whole pipeline on the embedded default: procedural faces at 32 pixels, on two CPU cores, in under ten minutes.

    python -m sface_jax.main --config=configs/quickstart.py --workdir=DIR

Needs nothing. Expected: DIR/report/index.html, with the verification accuracy (10-fold, identities that nothing was
trained on) of `authentic` above 0.93, `classification` above 0.75, `distillation` and `combined` above that.

Each stage's own config has a variant `quickstart` that runs this pipeline up to that stage.

    python -m sface_jax.main --config=configs/quickstart.py:folder --workdir=DIR --config.prepare.source=FOLDER

The same pipeline on real pictures, FOLDER/<identity>/<picture>, at the same size: to see one's own data go through
before accelerators are paid for. Expected: docs/RESULTS.md shows two such runs.

    python -m sface_jax.main --config=configs/quickstart.py:teacher --workdir=DIR --config.prepare.source=FOLDER \\
        --config.teacher.source=FILE

The three strategies on authentic pictures at 64 pixels, with a teacher from PyTorch: FILE is a recogniser's state dict
with embeddings of 128 dimensions; for others set `--config.distillation.embedding_size`, and the same for `combined`.
Expected: DIR/report with the accuracy of `teacher`, `classification`, `distillation` and `combined`; docs/RESULTS.md.

The variant `tiny` goes through every stage in about two minutes; its figures mean nothing.
"""

from ml_collections import ConfigDict

from configs import classification, combined, convert, distillation, gan, prepare, privacy, report, synthesize, verify

NETWORKS = ("authentic", "classification", "distillation", "combined", "matcher")

# Each stage, and what must have run before it.
NEEDS = {
    "prepare": (),
    "authentic": ("prepare",),
    "gan": ("prepare", "authentic"),
    "synthesize": ("gan",),
    "classification": ("synthesize",),
    "distillation": ("synthesize", "authentic"),
    "combined": ("synthesize", "authentic"),
    "matcher": ("prepare",),
    "verify": NETWORKS,
    "privacy": ("synthesize", "matcher", "classification", "distillation", "combined"),
    "report": ("verify", "privacy"),
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the pipeline, or that of a variant: see above."""
    if variant == "folder":
        return _folder()
    if variant == "teacher":
        return _teacher()
    if variant == "tiny":
        return _tiny()
    if variant:
        raise ValueError(f'configs/quickstart.py has no variant "{variant}": there are "folder", "teacher" and "tiny"')
    return up_to("report")


def up_to(last: str) -> ConfigDict:
    """Returns the pipeline cut to a stage and what it needs, in order.

    Args:
        last: one of `NEEDS`.
    """
    config = ConfigDict()
    config.seed = 0  # of every stage
    wanted = _before(last)
    config.stages = tuple(name for name in NEEDS if name in wanted)
    made = {
        "prepare": _prepare(),
        "authentic": _recognition(classification.get_config(), "authentic", "{workdir}/authentic", "train", 12.0),
        "gan": _gan(),
        "synthesize": _synthesize(),
        "classification": _recognition(classification.get_config(), "classification"),
        "distillation": _recognition(distillation.get_config(), "distillation"),
        "combined": _recognition(combined.get_config(), "combined"),
        "matcher": _recognition(classification.get_config(), "matcher", "{workdir}/authentic", "matcher", 16.0),
        "verify": _verify(),
        "privacy": _privacy(),
        "report": report.get_config(),
    }
    for name in config.stages:
        config[name] = made[name]
        if "seed" in made[name]:
            config[name].seed = config.get_ref("seed")
    return config


def _before(stage: str) -> set[str]:
    return {stage}.union(*(_before(name) for name in NEEDS[stage]))


def _prepare() -> ConfigDict:
    config = prepare.get_config()
    config.source = "procedural"
    config.image_size = 32
    config.identities = 340
    config.heldout_identities = 60
    config.matcher_identities = 80
    config.pictures_per_identity = 32
    config.pairs_per_fold = 300
    return config


def _gan() -> ConfigDict:
    config = gan.get_config()
    # Small networks, small batches and a high rate: a CPU has time for some thousand steps only, and what counts in
    # them is the number of updates. The label goes straight into D's projection for the same reason.
    config.z_dim = 64
    config.w_dim = 64
    config.d_mapping_layers = 0
    config.channel_base = 256
    config.d_channel_base = 256
    config.channel_max = 32
    config.dtype = "float32"
    config.kimg = 96.0
    config.batch_size = 16
    config.generator_learning_rate = 0.01
    config.discriminator_learning_rate = 0.01
    config.r1_gamma = 0.02
    # 32 pictures an identity are enough for this small a network to do without; they would take half of the time.
    config.augment = ""
    config.path_length_weight = 0.0
    config.style_mixing = 0.0
    config.ema_kimg = 5.0
    config.watch_network = "{workdir}/recognition/authentic"
    config.watch_every = 1000
    config.watch_classes = 100
    config.watch_per_class = 10
    config.log_every = 100
    config.sample_every = 1000
    config.checkpoint_every = 1000
    return config


def _synthesize() -> ConfigDict:
    config = synthesize.get_config()
    config.per_class = 32
    config.batch_size = 100
    return config


def _verify() -> ConfigDict:
    config = verify.get_config()
    config.networks = NETWORKS
    config.baselines = ("pixels",)
    return config


def _privacy() -> ConfigDict:
    config = privacy.get_config()
    config.generator = "{workdir}"
    config.released = ("classification", "distillation", "combined")
    return config


def _recognition(
    config: ConfigDict, name: str, dataset: str = "{workdir}/synthetic", split: str = "train", epochs: float = 7.0
) -> ConfigDict:
    config.name = name
    config.dataset = dataset
    config.split = split
    config.augmentations = ("flip", "translate", "light")
    config.network = "iresnet_narrow"
    config.embedding_size = 0
    config.image_size = 0
    config.dropout = 0.0
    config.head = "cosface(scale=32.0, margin=0.35)"
    config.distillation_weight = min(config.distillation_weight, 2500.0)
    config.epochs = epochs
    config.batch_size = 128
    config.learning_rate_batch = 128
    config.schedule = "cosine"
    config.warmup_epochs = 1.0
    config.log_every = 20
    config.checkpoint_every = 500
    config.tensorboard = False
    return config


def _folder() -> ConfigDict:
    """The pipeline on a folder of pictures, with as many steps whatever its size."""
    config = up_to("report")
    config.prepare.source = ""
    config.prepare.drop_small_identities = True
    config.prepare.heldout_identities = 0.15
    config.prepare.matcher_identities = 0.2
    # Few pictures an identity: D would learn them by heart, and the faster so at a high rate.
    config.gan.augment = "bgc"
    config.gan.ada_kimg = 30.0
    config.gan.generator_learning_rate = 0.005
    config.gan.discriminator_learning_rate = 0.005
    config.gan.r1_gamma = 0.05
    for name in NETWORKS:
        config[name].steps = 400
    return config


def _teacher() -> ConfigDict:
    """The three strategies on authentic pictures, with a teacher from PyTorch."""
    config = ConfigDict()
    config.seed = 0
    config.stages = ("prepare", "teacher", "classification", "distillation", "combined", "verify", "report")
    config.prepare = _prepare()
    config.prepare.update({"source": "", "image_size": 64, "drop_small_identities": True})
    config.prepare.update({"heldout_identities": 0.1, "matcher_identities": 0})
    config.teacher = convert.get_config()
    config.teacher.output = "{workdir}/recognition/teacher"
    for name, strategy in (("classification", classification), ("distillation", distillation), ("combined", combined)):
        config[name] = _recognition(strategy.get_config(), name, "{workdir}/authentic")
        config[name].update({"steps": 400, "teacher": config.teacher.output, "teacher_cache": True})
    config.verify = _verify()
    config.verify.networks = ("teacher", "classification", "distillation", "combined")
    config.report = report.get_config()
    for name in ("prepare", "classification", "distillation", "combined"):
        config[name].seed = config.get_ref("seed")
    return config


def _tiny() -> ConfigDict:
    """The pipeline with everything cut down."""
    config = up_to("report")
    config.prepare.update(
        {"identities": 24, "heldout_identities": 8, "matcher_identities": 6, "pictures_per_identity": 10}
    )
    config.prepare.pairs_per_fold = 20
    config.gan.update({"kimg": 0.128, "batch_size": 16, "channel_base": 128, "d_channel_base": 128, "channel_max": 16})
    config.gan.update({"augment": "bgc", "path_length_weight": 2.0, "style_mixing": 0.9})
    config.gan.update({"sample_every": 4, "watch_every": 4, "watch_classes": 4, "watch_per_class": 4})
    config.synthesize.update({"per_class": 6, "batch_size": 20})
    for name in NETWORKS:
        config[name].update({"steps": 4, "batch_size": 16, "widths": (8, 8, 16), "embedding_size": 16, "log_every": 2})
    return config
