"""Stage `export`: a dataset or any other labelled pictures, in a format that others read.

With the files go a manifest of their own and, where the source has them, its card and its preview: into the folder, or
beside the file, "x.manifest.json" for "x.rec". The manifest is written last: what has one is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data import cards, dataset, formats, pairs, recordio, tables, tfrecords, webdataset

PACK = ".bin"
FOLDS = 10  # that readers of a pack cut it into

_FOLDER, _TFDS = "folder", "tfds"
_OF_SOURCE = " The manifest of the dataset is in it, under `source_manifest`."


class _Format(NamedTuple):
    """A format's name, and how it is read, in Markdown."""

    name: str
    reading: str


_FORMATS = {
    recordio.SUFFIX: _Format(
        "RecordIO",
        """\
    from mxnet import recordio
    records = recordio.MXIndexedRecordIO("{stem}.idx", "{file}", "r")
    header, picture = recordio.unpack(records.read_idx(1))  # records 1 to {pictures}; header.label is the class

The layout is InsightFace's. `{stem}.lst` names the pictures.""",
    ),
    webdataset.SUFFIX: _Format(
        "WebDataset",
        """\
    import webdataset
    for picture, label in webdataset.WebDataset("{file}").decode("pil").to_tuple("jpg;jpeg;png", "cls"):
        ...

A file's folder in the tar is its class.""",
    ),
    tables.PARQUET: _Format(
        "Parquet",
        """\
    import datasets
    source = datasets.load_dataset("parquet", data_files="{file}")["train"]
    source[0]  # {{"image": a picture of PIL, "label": int, "identity": the name of the class}}""",
    ),
    PACK: _Format(
        "verification pack",
        """\
    import pickle
    with open("{file}", "rb") as file:
        pictures, same = pickle.load(file, encoding="bytes")  # {pairs} pairs of {pictures} different pictures

Pair i is `pictures[2 * i]` and `pictures[2 * i + 1]`, encoded; `same[i]` says whether both are of one class.""",
    ),
    _FOLDER: _Format("folders", "Each folder is a class, and holds its pictures as files."),
    _TFDS: _Format(
        "TFDS dataset in TFRecord",
        """\
    import tensorflow_datasets as tfds
    source = tfds.load("{parent}", data_dir="<the folder that holds {parent}>", split="{split}")

Each item has "image" (uint8), "label" (int) and "name".""",
    ),
}


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Writes what `config.source` is in the format of `config.output`; see `configs/export.py` for the keys.

    Returns:
        {"output", "pictures", "identities", "renamed", "cards"}; of a pack "pairs" in place of the middle ones.

    Raises:
        UserError: there is nothing to read, or the output is there already or of an unknown format.
        Damaged: a container or a picture cannot be read.
    """
    if jax.process_count() > 1:
        raise UserError("an export is the work of one process: run it alone")
    if not config.source or not config.output:
        raise UserError(
            "set --config.source to a dataset or other pictures, and --config.output to a new file or folder"
        )
    if "://" in config.output:
        raise UserError(f"{config.output} is on a remote disk: export to a local one, and copy it from there")
    output = Path(config.output)
    if config.pairs and _kind(output) != PACK:
        raise UserError(f"config.pairs makes a verification pack: set --config.output to a {PACK}")
    for name in (cards.FILE, cards.MANIFEST, cards.PREVIEW):
        if (path := _beside(output, name)).exists():
            raise UserError(f"{path} is there already: choose another folder for {output.name}")
    found = _told_of(epath.Path(config.source))
    manifest = files.read_json(found[cards.MANIFEST]) if cards.MANIFEST in found else {}
    if not isinstance(manifest, dict):
        raise UserError(f"{found[cards.MANIFEST]} is the manifest of something else: move it away")
    write = {PACK: _pack, _TFDS: _tfds}.get(_kind(output), _pictures)
    written, split, counts = write(config, output)
    new = {
        "format": _FORMATS[_kind(output)].name,
        "made_from": {"source": str(config.source), "sha256": cards.stated(manifest), "split": split},
        "licence": manifest.get("licence", ""),
        **counts,
        "sha256": _hashes(output, written),
        "source_manifest": manifest or None,
    }
    reading = _reading(output, written, split, counts) + (_OF_SOURCE if manifest else "")
    told = _hand_on(found, output, new, reading)
    return {"output": str(output), **counts, "cards": told}


def _kind(output: Path) -> str:
    """The key of `_FORMATS`."""
    suffix = output.suffix.lower()
    return _TFDS if tfrecords.asked(output) else suffix if suffix in _FORMATS else _FOLDER


def _beside(output: Path, name: str) -> Path:
    return output / name if _kind(output) in (_FOLDER, _TFDS) else output.with_name(f"{output.stem}.{name}")


def _pictures(config: ConfigDict, output: Path) -> tuple[list[Path], str, dict[str, int]]:
    """Writes labelled pictures; returns the files, the split that was read, and how much there is."""
    split = config.split or "train"
    source = formats.open_source(config.source, split, config.image_column, config.label_column)
    written = formats.write(output, source, shard_bytes=int(config.shard_mb * 1e6))
    counts = {"pictures": len(source.labels), "identities": len(source.class_names), "renamed": written.renamed}
    logging.info("%d pictures of %d identities: in %s", counts["pictures"], counts["identities"], output)
    return written.files, split if isinstance(source, dataset.SplitSource) else "", counts


def _tfds(config: ConfigDict, output: Path) -> tuple[list[Path], str, dict[str, int]]:
    """Writes all splits of a dataset as TFRecord files; see `_pictures`."""
    opened = dataset.open(config.source, "source")
    total = sum(len(opened[split]) for split in opened.splits)
    progress = Progress(f"writing {output}", total, unit="pictures")
    written = tfrecords.write(output, opened, progress.update)
    progress.close()
    logging.info('%d pictures: tfds.load("%s", data_dir="%s")', total, output.parent.name, output.parent.parent)
    return written, "+".join(opened.splits), {"pictures": total, "identities": len(opened.class_names), "renamed": 0}


def _pack(config: ConfigDict, output: Path) -> tuple[list[Path], str, dict[str, int]]:
    """Writes a verification pack of the pairs in `config.pairs`, or of a dataset's held-out ones; see `_pictures`."""
    if output.exists():
        raise UserError(f"{output} is there already: choose another --config.output")
    root = epath.Path(config.source)
    listed, split = config.pairs, config.split or "train"
    if not listed and (root / "heldout_pairs.txt").exists():
        listed, split = root / "heldout_pairs.txt", config.split or "heldout"
    if not listed:
        raise UserError(f"{root} has no heldout_pairs.txt: set --config.pairs to a file of pairs")
    if root.is_dir() and not formats.holds_container(root):
        paths, drawn = pairs.read_pairs_file(listed, root)
        contents, split = [path.read_bytes() for path in paths], ""
    else:
        source = formats.open_source(root, split, config.image_column, config.label_column)
        drawn = pairs.read_split_pairs(listed, source)
        used = np.unique([drawn.first, drawn.second]).tolist()
        contents = {position: source.read(position) for position in used}
        split = split if isinstance(source, dataset.SplitSource) else ""
    if drawn.folds != FOLDS:
        dealt = drawn.in_folds(FOLDS)
        told = "%s: the pairs of %d folds were dealt into %d, %d of %d fill no round and are left out"
        logging.warning(told, output, drawn.folds, FOLDS, len(drawn) - len(dealt), len(drawn))
        drawn = dealt
    if not len(drawn):
        raise UserError(f"{listed} has too few pairs for the {FOLDS} folds of a pack")
    order = np.stack([drawn.first, drawn.second], axis=1).reshape(-1).tolist()
    foreign = sum(not recordio.mxnet_decodes(contents[position]) for position in set(order))
    if foreign:
        logging.warning(
            "%s has %d pictures that are neither JPEG nor PNG: not every reader decodes them", output, foreign
        )
    pairs.write_bin(output, [contents[position] for position in order], drawn.same)
    counts = {"pictures": len(set(order)), "pairs": len(drawn)}
    logging.info("%d pairs of %d pictures: in %s", counts["pairs"], counts["pictures"], output)
    return [output], split, counts


def _hashes(output: Path, written: list[Path]) -> str | dict[str, str]:
    """The SHA-256 of each file, or one of a folder of pictures."""
    if _kind(output) == _FOLDER:
        return cards.sha256_of_folder(output)
    return {path.name: cards.sha256(path) for path in written}


def _hand_on(found: dict[str, epath.Path], output: Path, manifest: dict[str, Any], reading: str) -> list[str]:
    """Writes card, preview and last the manifest of an export; returns their names."""
    places = {name: _beside(output, name) for name in (*found, cards.MANIFEST)}
    if cards.FILE in found:
        renamed = {
            found[name].name if name in found else name: places[name].name if name in places else None
            for name in (cards.MANIFEST, cards.PREVIEW)
        }
        files.write_text(places[cards.FILE], cards.handed_on(found[cards.FILE].read_text(), renamed, reading))
    if cards.PREVIEW in found:
        files.write_bytes(places[cards.PREVIEW], found[cards.PREVIEW].read_bytes())
    files.write_json(places[cards.MANIFEST], manifest)
    return [path.name for path in places.values()]


def _told_of(source: epath.Path) -> dict[str, epath.Path]:
    """Card, manifest and preview of a source: in its folder, or beside its file, as this stage writes them."""
    folder, prefix = (source, "") if source.is_dir() else (source.parent, f"{source.stem}.")
    alone = list(folder.glob(f"*.{cards.MANIFEST}"))  # of a folder with one export in it
    if not prefix and len(alone) == 1 and not (folder / cards.MANIFEST).exists():
        prefix = alone[0].name.removesuffix(cards.MANIFEST)
    found = {name: folder / f"{prefix}{name}" for name in (cards.FILE, cards.PREVIEW, cards.MANIFEST)}
    return {name: path for name, path in found.items() if path.exists()}


def _reading(output: Path, written: list[Path], split: str, counts: dict[str, int]) -> str:
    """How the export is read, for its card."""
    names = [path.name for path in written]
    if len(names) > 1 and _kind(output) == webdataset.SUFFIX:
        first, last = (name.removesuffix(webdataset.SUFFIX).rpartition("-")[2] for name in (names[0], names[-1]))
        file = f"{output.stem}-{{{first}..{last}}}{webdataset.SUFFIX}"
    else:
        file = names[0] if _kind(output) == webdataset.SUFFIX else output.name
    facts = {"file": file, "stem": output.stem, "parent": output.parent.name, "split": split.partition("+")[0]}
    text = _FORMATS[_kind(output)].reading.format(**facts, **counts)
    labels = f"Labels are 0 to {counts['identities'] - 1}.\n\n" if "identities" in counts else ""
    manifest = _beside(output, cards.MANIFEST).name
    return (
        f"{text}\n\n{labels}The pictures are those of the dataset, byte for byte. "
        f"`{manifest}` says where they are from, and the SHA-256 of what was written."
    )
