"""How fast networks train and run on this machine.

    python -m sface_jax.main --config=configs/benchmark.py --workdir=DIR

Needs nothing. For the GAN, times each phase of training and the generator, with networks and batches of the usual
sizes and adaptive augmentation on, and a matrix product between them, to tell the machine from the code. Expected: a
table, and DIR/benchmark/benchmark.json; on two CPU cores in about ten minutes. docs/RESULTS.md has figures.

Every key of configs/gan.py that shapes networks or phases may be set: on an accelerator, for instance

    --config.sizes='(128,)' --config.batch_sizes='(32,)' --config.dtype=bfloat16 --config.classes=10572

    python -m sface_jax.main --config=configs/benchmark.py:recognition --workdir=DIR

Needs nothing. Times the training step and the embedding of a recogniser, iResNet-50 at 112 pixels with 10,572 classes,
in batches of 16. Expected: a table, and DIR/benchmark/recognition.json. On an accelerator, say

    --config.batch_size=512 --config.dtype=bfloat16 --config.peak_tflops=989

and the table tells the share of that peak (989 is an H100's or H200's in bfloat16).

    python -m sface_jax.main --config=configs/benchmark.py:loader --workdir=DIR

Needs: DIR/authentic, or another dataset in `--config.dataset`. Times the input pipeline against decoding alone, with
threads and with worker processes. Expected: a table of pictures/s, and DIR/benchmark/loader.json, in a minute.

    python -m sface_jax.main --config=configs/benchmark.py:verification --workdir=DIR

Needs nothing but 3 GiB of memory. Times the protocol of 6,000 pairs against loops over thresholds, and that of
templates on embeddings of IJB-C's shape. Expected: a table, and DIR/benchmark/verification.json, in a minute; on two
CPU cores 7 ms, and 5 s.

    python -m sface_jax.main --config=configs/benchmark.py:matching --workdir=DIR

Needs nothing but 5 GiB of memory. Times the audit's engine, all pictures against all, on embeddings of the shape of
SFace-60 and CASIA-WebFace, against the bare matrix product and, where faiss is installed (`pip install faiss-cpu`), its
flat index. Expected: a table, the time of the whole as it follows from a slice, and DIR/benchmark/matching.json, in two
minutes.
"""

from ml_collections import ConfigDict

from configs import classification, gan


def get_config(variant: str = "") -> ConfigDict:
    """Returns GANs of the paper's size at 32 and 64 pixels, or the benchmark of a variant, see above."""
    if variant == "recognition":
        return _recognition()
    if variant == "loader":
        return _loader()
    if variant == "verification":
        return _verification()
    if variant == "matching":
        return _matching()
    if variant:
        known = '"recognition", "loader", "verification" and "matching"'
        raise ValueError(f'configs/benchmark.py has no variant "{variant}": there are {known}')
    config = gan.get_config()
    config.stage = "benchmark"
    config.sizes = (32, 64)  # pixels
    config.batch_sizes = (16, 8)  # of each
    config.classes = 40
    config.rounds = 3
    config.dtype = "float32"
    config.augment_p = 0.5
    return config


def _recognition() -> ConfigDict:
    config = classification.get_config()
    config.name = config.stage = "benchmark_recognition"
    config.classes = 10572
    config.batch_size = 16
    config.rounds = 5
    config.peak_tflops = 0.0  # of all devices, in config.dtype; above 0 the share of it is told
    return config


def _loader() -> ConfigDict:
    config = ConfigDict()
    config.name = config.stage = "benchmark_loader"
    config.dataset = "{workdir}/authentic"
    config.split = "train"
    config.batch_size = 128
    config.pictures = 50_000  # in each measurement
    config.worker_counts = (0, 2)  # processes; 0 measures threads
    config.rounds = 5
    return config


def _verification() -> ConfigDict:
    config = ConfigDict()
    config.name = config.stage = "benchmark_verification"
    config.pairs = 6000
    config.dimensions = 512
    config.rounds = 15
    config.pictures = 469_375  # of templates, as IJB-C has them; 0 leaves templates out
    config.templates = 23_124
    config.template_pairs = 15_658_489
    return config


def _matching() -> ConfigDict:
    config = ConfigDict()
    config.name = config.stage = "benchmark_matching"
    config.n = 634_320  # pictures of the whole
    config.m = 494_414
    config.identities = 10_572
    config.dimensions = 512
    config.queries = 16_384  # pictures of the slice
    config.gallery = 65_536
    config.rounds = 5
    return config
