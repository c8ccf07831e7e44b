"""A recogniser trained on synthetic faces by their labels alone: SFace's classification strategy.

    python -m sface_jax.main --config=configs/classification.py --workdir=DIR

Needs: DIR/synthetic, written by configs/synthesize.py (SFace-60: 10,572 identities, 634,320 pictures), or another
dataset in `--config.dataset`.
Expected: DIR/recognition/classification; verified with configs/verify.py, the paper's recipe gives 91.87 % on LFW,
71.68 AgeDB-30, 77.93 CALFW, 73.20 CPLFW, 73.86 CFP-FP.

The same command trains the ceiling, which is also the teacher of the other strategies, on authentic pictures:

    python -m sface_jax.main --config=configs/classification.py --workdir=DIR \\
        --config.name=authentic --config.dataset=DIR/authentic

    python -m sface_jax.main --config=configs/classification.py:quickstart

Needs nothing: everything up to this network on the embedded faces, in some minutes on a CPU.
"""

from ml_collections import ConfigDict

from configs import combined


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe, or with variant "quickstart" the quickstart up to this network."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("classification")
    if variant:
        raise ValueError(f'configs/classification.py has no variant "{variant}": there is "quickstart"')
    config = combined.get_config()
    config.name = "classification"
    config.distillation_weight = 0.0
    return config
