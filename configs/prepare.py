"""The authentic dataset: folders of face pictures, or the embedded procedural faces, with identities held out.

    python -m sface_jax.main --config=configs/prepare.py --workdir=DIR --config.source=FOLDER

Needs: FOLDER/<identity>/<picture>, aligned faces as JPEG, PNG, PGM, BMP or WebP, any size, grey or colour.
Expected: DIR/authentic, a TFDS directory with splits `train`, `heldout` and `matcher` that share no identity,
manifest.json and heldout_pairs.txt; DIR/skipped.txt names the pictures that could not be read, if any.

    python -m sface_jax.main --config=configs/prepare.py:quickstart

Needs nothing: draws faces of people who do not exist, in under a minute.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config for folders, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("prepare")
    if variant:
        raise ValueError(f'configs/prepare.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "prepare"
    config.source = ""  # a folder of <identity>/<picture>, or "procedural"
    config.image_size = 112
    config.seed = 0
    config.heldout_identities = 0.05  # for verification and as the audit's non-members; below 1, a fraction of all
    config.matcher_identities = 0.1  # to train the audit's matcher; below 1, a fraction of all
    config.pairs_per_fold = 600  # verification pairs in each of 10 folds; fewer where the held-out pictures give fewer
    # Folders.
    config.max_identities = 0  # keep this many, chosen by the seed; 0 keeps all
    config.min_pictures = 2  # the least pictures of an identity
    config.drop_small_identities = False  # leave out identities with fewer, rather than refuse
    config.max_unreadable = 0.01  # largest fraction of pictures that may be unreadable
    # Procedural faces.
    config.identities = 1000  # in all, held-out and matcher identities among them
    config.pictures_per_identity = 50
    return config
