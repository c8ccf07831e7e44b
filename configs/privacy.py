"""How much of the authentic identities a synthetic dataset gives away.

    python -m sface_jax.main --config=configs/privacy.py --workdir=DIR

Needs: DIR/authentic with held-out identities, DIR/synthetic, and a matcher in DIR/recognition that was trained on
other people (never the teacher). A dataset made by anybody is audited from folders <root>/<identity>/<picture>, the
synthetic identities named after the authentic ones they were made from:

    --config.authentic=DIR --config.heldout=DIR --config.synthetic=DIR --config.matchers=MATCHER_DIR

Expected: DIR/privacy/audit.json and a verdict in the log. For the data of the paper, read off its figures: EER .076
authentic, .292 between authentic and synthetic pictures of a label, D_sys .38, and a match rate of 11.6 % at FMR 1e-3.

    python -m sface_jax.main --config=configs/privacy.py:quickstart

Needs nothing: everything up to this stage on the embedded faces, in a few minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the audit, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("privacy")
    if variant:
        raise ValueError(f'configs/privacy.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "privacy"
    config.authentic = "{workdir}/authentic"  # a dataset (split train), or a folder of pictures
    config.heldout = ""  # folder of people the generator never saw; "" takes split heldout of the dataset
    config.synthetic = "{workdir}/synthetic"  # a dataset (split train), or a folder of pictures
    config.matchers = ("matcher",)  # under DIR/recognition, or paths; the first one decides, the others are reported
    config.teacher = "authentic"  # what taught the networks under audit: may not be a matcher
    config.max_pictures = 50_000  # of each set, evenly over the identities; 0 takes all
    config.planted = 100  # near copies of member pictures planted as a control; 0 plants none
    config.batch_size = 256  # over all devices
    config.flip = "sum"  # of a picture's embedding and its mirror image's; or "concatenate", or "none"
    config.seed = 0
    return config
