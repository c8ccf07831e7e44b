"""A recogniser trained on synthetic faces by their labels alone: SFace's classification strategy.

    python -m sface_jax.main --config=configs/classification.py --workdir=DIR

Needs: DIR/synthetic, written by configs/synthesize.py (SFace-60: 10,572 identities, 634,320 pictures), or another
dataset in `--config.dataset`.
Expected: DIR/recognition/classification; verified with configs/verify.py, the paper's recipe gives on the first so
many pictures of each identity, in %:

    variant   pictures   LFW    AgeDB-30  CALFW  CPLFW  CFP-FP
    sface10   106 k      87.13  63.30     73.47  66.82  68.84
    sface20   211 k      90.50  69.17     76.35  71.17  73.33
    sface40   423 k      91.43  69.87     76.92  73.42  73.10
    sface60   634 k      91.87  71.68     77.93  73.20  73.86

    python -m sface_jax.main --config=configs/classification.py:sface10 --workdir=DIR

The variant `modern` has RandAugment, a cosine schedule with a warm-up and bfloat16, as recipes for synthetic faces have
taken them up since; what it gives has not been measured here.

The same command trains the ceiling, which is also the teacher of the other strategies, on authentic pictures:

    python -m sface_jax.main --config=configs/classification.py --workdir=DIR \\
        --config.name=authentic --config.dataset=DIR/authentic

    python -m sface_jax.main --config=configs/classification.py:quickstart

Needs nothing: everything up to this network on the embedded faces, in some minutes on a CPU.
"""

from ml_collections import ConfigDict

from configs import combined


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe, or that of a variant; with "quickstart" the quickstart up to this network."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("classification")
    config = combined.recipe("classification", variant)
    config.distillation_weight = 0.0
    return config
