"""A dataset in a format that others read; the suffix of the output decides.

    python -m sface_jax.main --config=configs/export.py --workdir=runs/export --config.source=DIR/synthetic \\
        --config.output=faces/train.rec

    .rec                    InsightFace's RecordIO: train.rec, train.idx, train.lst and property, which MXNet reads too
    .tar                    WebDataset: <identity>/<picture> and its label as .cls; with --config.shard_mb=1000 several
                            files of about that size, faces-000000.tar and so on
    .parquet                Hugging Face's datasets: image struct{bytes, path}, label, identity
    a folder without a dot  <identity>/<picture>
    my_faces/1.0.0          a folder named by a version: TFDS in TFRecord, all splits, for tfds.load("my_faces",
                            data_dir=...); needs a dataset, and a name that no dataset of TFDS's catalogue has

Needs: a folder that configs/prepare.py or configs/synthesize.py wrote, or labelled pictures in any of the formats
above, a list of paths and labels (.csv, .tsv, .txt, .lst, .parquet), or a folder of <identity>/<picture>.
Expected: the files in seconds to minutes, pictures byte for byte as they were; where the suffix of a picture's name is
not that of its content it is made so, which is counted. manifest.json says where all is from, with the SHA-256 of what
was written and the manifest of the dataset in it, and the dataset's card and preview go along, the card with how this
format is read: in a folder, or beside a file as train.manifest.json, train.README.md and train.preview.png.

A verification pack, `.bin`, of the pairs that configs/prepare.py drew of held-out identities, or of others:

    python -m sface_jax.main --config=configs/export.py --workdir=runs/pack --config.source=DIR/authentic \\
        --config.output=heldout.bin
    python -m sface_jax.main --config=configs/export.py --workdir=runs/pack2 --config.source=FOLDER \\
        --config.pairs=pairs.txt --config.output=lfw.bin

Expected: a file that InsightFace's verification reads, and --config.benchmarks="('lfw.bin',)" of configs/verify.py.
Readers cut a pack into 10 folds, one after another; pairs in another number of folds are dealt anew, which is told.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the export of `source` to `output`, which have no defaults."""
    if variant:
        raise ValueError(f'configs/export.py has no variants, so no "{variant}"')
    config = ConfigDict()
    config.stage = "export"
    config.source = ""  # a dataset, or labelled pictures in any format
    config.split = ""  # of a dataset; without, "train", and "heldout" for a pack of held-out pairs
    config.output = ""  # a new file or folder
    config.pairs = ""  # for a pack: a file of pairs, where the source has no heldout_pairs.txt
    config.shard_mb = 0.0  # size of a .tar in megabytes, from which on another one is begun; 0 writes one
    # Columns of a list or a Parquet file, where they have other names than "path", "image", "label", "identity"...
    config.image_column = ""
    config.label_column = ""
    return config
