"""A recogniser trained on synthetic faces by a teacher, without their labels: SFace's knowledge transfer.

    python -m sface_jax.main --config=configs/distillation.py --workdir=DIR

Needs: DIR/synthetic, written by configs/synthesize.py, and a teacher trained on authentic faces in
DIR/recognition/authentic; or other folders in `--config.dataset` and `--config.teacher`.
Expected: DIR/recognition/distillation, whose embeddings can be compared with the teacher's; verified with
configs/verify.py it lies between classification (91.87 % on LFW) and its teacher.

    python -m sface_jax.main --config=configs/distillation.py:quickstart

Needs nothing: everything up to this network on the embedded faces, in some minutes on a CPU.
"""

from ml_collections import ConfigDict

from configs import combined


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe, or with variant "quickstart" the quickstart up to this network."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("distillation")
    if variant:
        raise ValueError(f'configs/distillation.py has no variant "{variant}": there is "quickstart"')
    config = combined.get_config()
    config.name = "distillation"
    config.classification_weight = 0.0
    return config
