"""A recogniser trained on synthetic faces by a teacher, without their labels: SFace's knowledge transfer.

    python -m sface_jax.main --config=configs/distillation.py --workdir=DIR

Needs: DIR/synthetic, written by configs/synthesize.py, and a teacher trained on authentic faces in
DIR/recognition/authentic; or other folders in `--config.dataset` and `--config.teacher`.
Expected: DIR/recognition/distillation, whose embeddings can be compared with the teacher's; verified with
configs/verify.py it lies between classification (91.87 % on LFW) and its teacher.

Variants: `sface10`, `sface20`, `sface40` and `sface60` take the first so many pictures of each identity, where labels
alone give what configs/classification.py lists; `modern` has RandAugment, a cosine schedule with a warm-up and
bfloat16, and what it gives has not been measured here.

    python -m sface_jax.main --config=configs/distillation.py:quickstart

Needs nothing: everything up to this network on the embedded faces, in some minutes on a CPU.
"""

from ml_collections import ConfigDict

from configs import combined


def get_config(variant: str = "") -> ConfigDict:
    """Returns the paper's recipe, or that of a variant; with "quickstart" the quickstart up to this network."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("distillation")
    config = combined.recipe("distillation", variant)
    config.classification_weight = 0.0
    return config
