"""The TFDS builder: any source of pictures becomes a dataset in ArrayRecord format.

This module imports tensorflow_datasets: import it only where a dataset is built. Pictures arrive encoded, so TFDS does
not load tensorflow here; where other code makes it do so, it is kept off the accelerators.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from tensorflow_datasets.core import writer

from sface_jax.core import files
from sface_jax.core.progress import Progress
from sface_jax.data import example, layout
from sface_jax.data.records import no_space
from sface_jax.data.sources import Source


class _Writer(writer.ExampleWriter):
    """Writes the fields of a record in a fixed order: TFDS's own differs from one process to the next."""

    def write(self, path: epath.PathLike, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, example.encode(example.decode(record))) for key, record in examples))


class FaceDataset(tfds.core.GeneratorBasedBuilder):
    """Labelled face pictures, split by identity; labels count through the splits in order, "train" first."""

    name = layout.NAME
    VERSION = tfds.core.Version(layout.VERSION)
    # Nothing is downloaded; TFDS 4.9.10 would look for the checksums with a package that it does not require.
    url_infos = None

    def __init__(self, *, source: Source, identities: Mapping[str, Sequence[str]], **kwargs: Any):
        """Describes the dataset to build.

        Args:
            source: gives out the pictures.
            identities: the identities of each split; no identity is in two.
            **kwargs: of `tfds.core.GeneratorBasedBuilder`, e.g. `data_dir`.
        """
        self._source, self._identities = source, identities
        self.class_names = [name for names in identities.values() for name in names]
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self._source.image_size
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=self.class_names),
            "name": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            description=layout.DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self._identities}

    def _example_writer(self) -> _Writer:
        return _Writer(self.info.file_format)

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        names = self._identities[split]
        labels = {name: label for label, name in enumerate(self.class_names)}
        progress = Progress(f"writing {split}", sum(map(self._source.count, names)), unit="pictures")
        for key, picture in enumerate(self._source.pictures(names)):
            name = f"{picture.identity}/{picture.name}"
            yield key, {"image": picture.content, "label": labels[picture.identity], "name": name}
            progress.update(key + 1)
        progress.close()


def build(source: Source, identities: Mapping[str, Sequence[str]], directory: files.PathLike) -> None:
    """Builds a dataset into `directory`, which must not hold one; it may be read when it is complete.

    TFDS builds in a folder beside it; the caller renames `directory` if it must appear all at once.

    Raises:
        UserError: no space is left on the device.
    """
    directory = epath.Path(directory)
    _keep_off_accelerators()
    scratch = directory / "tfds"
    try:
        with _quiet():
            builder = FaceDataset(source=source, identities=identities, data_dir=scratch)
            builder.download_and_prepare()
    except (OSError, RuntimeError) as error:
        raise no_space(error, directory) from error
    labels = {name: label for label, name in enumerate(builder.class_names)}
    for split, names in identities.items():
        layout.write_labels(directory, split, [labels[name] for name in names for _ in range(source.count(name))])
    # dataset_info.json goes last: a folder that has it is whole.
    built = sorted(builder.data_path.iterdir(), key=lambda path: path.name == layout.INFO_FILE)
    for path in built:
        path.rename(directory / path.name)
    scratch.rmtree()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS, which tells of downloads and of folders that are about to be renamed."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _keep_off_accelerators() -> None:
    """Hides GPUs from a tensorflow that is already loaded; an unloaded one stays so."""
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.config.set_visible_devices([], "GPU")
