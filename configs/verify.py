"""Verification accuracy of recognisers on authentic benchmarks.

    python -m sface_jax.main --config=configs/verify.py --workdir=DIR

Needs: the networks in DIR/recognition, and DIR/authentic with held-out identities. A benchmark in LFW's format is
named by its pairs file and its folder of pictures (aligned as the training pictures are):

    --config.benchmarks="('heldout', 'lfw=PAIRS_FILE:FOLDER')"

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
    config.benchmarks = ("heldout",)  # "heldout", or "name=pairs_file:folder"
    config.baselines = ()  # ("pixels",) adds a matcher without learning
    config.folds = 10  # for pairs files that have one fold only
    config.batch_size = 256  # over all devices
    config.flip = True  # add the embedding of the mirror image
    return config
