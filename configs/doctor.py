"""Why does this network score badly on that benchmark?

    python -m sface_jax.main --config=configs/doctor.py --workdir=DIR --config.network=FILE \\
        --config.benchmark=pairs.txt --config.root=FOLDER

Needs: a recogniser and a benchmark, as configs/verify.py takes them, and what was used there: `preprocessing`, `crop`,
`flip`. Without these it is what the network says of itself, whole pictures, and the sum with the mirror image.
Expected: in about a minute on a CPU, seconds on an accelerator, a table of the best ways to bring pictures before
the network, and one sentence, such as

    The network wants BGR, not RGB: 96.2 % as declared, 99.3 % with bgr on 500 pairs (d' 4.02 and 5.31);
    set --config.preprocessing=bgr

whose flags go to configs/verify.py. It tells RGB from BGR, one mean and std from another, faces that are cut too
loosely or too tightly, or several of them at once; or that nothing is wrong; or that no way is any good, where the
pictures are not aligned. DIR/doctor/<network>/<benchmark>.json has the figures of every way.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there are no variants."""
    if variant:
        raise ValueError(f'configs/doctor.py has no variant "{variant}"')
    config = ConfigDict()
    config.stage = "doctor"
    config.network = ""  # a name under DIR/recognition, or a path
    config.benchmark = "heldout"  # one, as in `benchmarks` of configs/verify.py
    config.root = ""  # the folder of pictures of a pairs file alone
    # What is declared, that is, in use. Words for the preprocessing: "arcface" for (x / 255 - 0.5) / 0.5, "facenet",
    # "imagenet", "unit", "raw", "caffe" or "vggface2", and "rgb" or "bgr"; "" is what the network says of itself.
    config.preprocessing = ""
    config.crop = 1.0  # share of the pictures' side that is kept; above 1 they are surrounded by their edge pixels
    config.flip = "sum"  # of a picture's embedding and its mirror image's; or "concatenate", or "none"
    config.crops = (1.3, 1.15, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # to try
    config.pairs = 500  # to draw of the benchmark, half of them mated
    config.seed = 0
    config.folds = 10
    config.batch_size = 64  # over all devices
    return config
