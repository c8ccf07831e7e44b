"""Verification accuracy of recognisers on authentic benchmarks.

    python -m sface_jax.main --config=configs/verify.py --workdir=DIR

Needs: the networks in DIR/recognition, and DIR/authentic with held-out identities. A benchmark in LFW's format is
named by its pairs file and its folder of pictures (aligned as the training pictures are), lists "path path 1" or
"path path 0" likewise; a pack of InsightFace's is a file by itself, in which nothing is run:

    --config.benchmarks="('heldout', 'lfw=PAIRS_FILE:FOLDER', 'agedb_30.bin')"

A recogniser from PyTorch, in a `.pth`, `.pt`, `.safetensors` or `.npz` file, is read as it is:

    python -m sface_jax.main --config=configs/verify.py --workdir=DIR --config.network=FILE \\
        --config.benchmarks=pairs.txt --config.root=FOLDER

Expected: a table in the log and DIR/verification/<network>.json; with the paper's recipe about 99.1 % on LFW for
"combined" and 91.9 % for "classification" (SFace-60). Seconds on an accelerator, a minute or two on a CPU.

    python -m sface_jax.main --config=configs/verify.py:quickstart

Needs nothing: everything up to this stage on the embedded faces, in a few minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the evaluation of the paper's networks, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("verify")
    if variant:
        raise ValueError(f'configs/verify.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "verify"
    config.networks = ("authentic", "classification", "distillation", "combined")  # under DIR/recognition, or paths
    config.network = ""  # a single one in their place, such as a PyTorch file
    # "heldout" or "verification", splits of DIR/authentic; "name=pairs_file:folder"; a pairs file alone; "pack.bin".
    config.benchmarks = ("heldout",)
    config.root = ""  # the folder of pictures of a pairs file alone
    config.baselines = ()  # ("pixels",) adds a matcher without learning
    config.folds = 10  # for pairs files that have one fold only
    config.batch_size = 256  # over all devices
    # Embeddings of picture and mirror image are put together by "sum" (as InsightFace does) or "concatenate"; "none"
    # takes the picture's alone. The first way is the network's result, the others are told beside it.
    config.flip = ("sum", "concatenate")
    return config
