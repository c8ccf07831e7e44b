"""The authentic dataset: face pictures from whatever holds them, with identities held out.

    python -m sface_jax.main --config=configs/prepare.py --workdir=DIR --config.source=SOURCE

SOURCE is one of

    FOLDER                       <identity>/<picture>: JPEG, PNG, PGM, BMP or WebP, any size, grey or colour
    train.rec, or its folder     InsightFace's and MXNet's RecordIO, with .idx, .lst and property or without
    faces.tar, faces-{000..007}.tar, or a folder of .tar files     WebDataset
    faces.csv .tsv .parquet      a column of paths or pictures and one of identities; also lists "path identity"
    DATASET                      a dataset that stage prepare or synthesize wrote; `config.split` of it

Expected: DIR/authentic, a TFDS directory with splits `train`, `heldout` and `matcher` that share no identity. In it are
preview.html (open it), validation.json (the findings in full), manifest.json, splits.tsv and heldout_pairs.txt.
DIR/skipped.txt names the pictures that are left out, with the reason. About 2,000 pictures of 112 pixels a second on
two cores, and while it works as much disk again as the dataset takes. A run that was cut off goes on, and ends with the
same bytes.

Faces should be aligned. Where they are not, say by what:

    --config.align=landmarks --config.landmarks=FILE     its lines are "<identity>/<picture> x1 y1 ... x5 y5"
    --config.align=mtcnn     a detector; needs the packages of '.[align]', and 0.9 GB for each of config.workers

Pictures in which no face is found are counted as failures to acquire (FTA) and left out.

    python -m sface_jax.main --config=configs/prepare.py:quickstart

Needs nothing: draws faces of people who do not exist, in under a minute.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config for pictures of one's own, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("prepare")
    if variant:
        raise ValueError(f'configs/prepare.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "prepare"
    config.source = ""  # see above, or "procedural"
    config.split = "train"  # of a source that is a dataset
    config.image_column = ""  # of a list or Parquet file, where its name is not a usual one
    config.label_column = ""
    config.image_size = 112
    config.seed = 0
    config.licence = ""  # under which the pictures were obtained, for the manifest and TFDS

    # Splits, by identity. Each share is a count, or below 1 a fraction of all.
    config.heldout_identities = 0.05  # for verification and as the audit's non-members
    config.matcher_identities = 0.1  # to train the audit's matcher
    config.verification_identities = 0.0  # for verification alone
    config.splits = ""  # a splits.tsv that says who belongs where, in place of the shares
    config.exclude = ""  # a file with an identity in each line: these are left out
    config.pairs_per_fold = 600  # verification pairs in each of 10 folds; fewer where the pictures give fewer

    # Pictures. Those of the right size that need no alignment keep their bytes.
    config.align = ""  # "", "landmarks", or a detector such as "mtcnn(threshold=0.9)"
    config.landmarks = ""  # the file
    config.encoding = "png"  # of pictures that are cut, resized or aligned: "png", or "jpeg" (quality 95)

    # What is left out.
    config.max_identities = 0  # keep this many, chosen by the seed; 0 keeps all
    config.min_pictures = 2  # the least pictures of an identity
    config.drop_small_identities = False  # leave out identities with fewer, rather than refuse
    config.max_unreadable = 0.01  # largest fraction of pictures that may be unreadable
    # Pictures with equal pixels: "keep" tells of them; "drop" keeps the first of an identity, and none of those that
    # show under two names, as one of them is wrong.
    config.duplicates = "keep"

    # EXIF, comments and the like may hold names and places. False tells how many pictures have some; True leaves it out
    # of the pictures that keep their bytes, and not a pixel changes.
    config.strip_metadata = False

    config.shard_size = 8192  # pictures in a file
    config.workers = 0  # processes that read and convert; 0: as many as there are cores

    # Procedural faces.
    config.identities = 1000  # in all, held-out and matcher identities among them
    config.pictures_per_identity = 50
    return config
