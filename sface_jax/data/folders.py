"""Pictures in folders: `<root>/<identity>/<picture>`, any format Pillow reads, any size, grey or colour."""

from __future__ import annotations

import concurrent.futures
import io
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data.sources import Picture

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".webp"})
_THREADS = os.cpu_count() or 1
_BLOCK = 256  # pictures held in memory at a time


def natural(name: str) -> list[str | int]:
    """Sort key that puts `s2` before `s10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def scan(root: files.PathLike) -> dict[str, list[epath.Path]]:
    """Lists the pictures of each identity, both in natural order; other files and empty folders are passed over.

    Raises:
        UserError: `root` is no folder, or holds no pictures.
    """
    root = epath.Path(root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: it should hold <identity>/<picture> files")
    found = {}
    for folder in sorted((f for f in root.iterdir() if f.is_dir() and f.name[0] != "."), key=lambda f: natural(f.name)):
        listed = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "."]
        if listed:
            found[folder.name] = sorted(listed, key=lambda p: natural(p.name))
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise UserError(f"{root} holds no pictures: they should lie at <identity>/<picture> ({kinds})")
    return found


def read_picture(path: files.PathLike, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Decodes a picture to RGB, cuts its central square and resizes that with an antialiasing Lanczos filter.

    Raises:
        OSError: the file cannot be read, is no picture, or is cut short.
    """
    return np.asarray(_open(path, size))


def _open(path: files.PathLike, size: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(epath.Path(path).read_bytes())) as image:
            image = _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise OSError(f"{path}: is no picture") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's readers are not of one mind
        raise OSError(f"{path}: {error}") from error
    side = min(image.size)
    if image.size == (size, size):
        return image
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Keeps the upper 8 of 16 bits, which `convert` would clip."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


class FolderSource:
    """The readable pictures under a folder, by identity.

    Attributes:
        identities: names of the identities that are kept, in natural order.
        skipped: how many pictures could not be read.
    """

    def __init__(
        self,
        root: files.PathLike,
        *,
        image_size: int,
        log: files.PathLike,
        min_pictures: int = 2,
        drop_small_identities: bool = False,
        max_unreadable: float = 0.01,
        max_identities: int = 0,
        seed: int = 0,
    ):
        """Lists the folder and reads every picture once, so that the dataset's labels are known before it is built.

        Args:
            root: the folder.
            image_size: side of the pictures it gives out.
            log: file that names the pictures that cannot be read, one a line, with the reason.
            min_pictures: the least readable pictures of an identity.
            drop_small_identities: leave out identities with fewer, rather than refuse.
            max_unreadable: the largest fraction of pictures that may be unreadable.
            max_identities: keep this many identities, chosen by `seed`; 0 keeps all.

        Raises:
            UserError: nothing to read, too much that is unreadable, or identities with too few pictures.
        """
        self.image_size = image_size
        found = scan(root)
        if 0 < max_identities < len(found):
            chosen = np.random.default_rng(seed).permutation(len(found))[:max_identities]
            names = list(found)
            found = {names[i]: found[names[i]] for i in sorted(chosen)}
        reasons = _check(found)
        _report(epath.Path(root), reasons, sum(map(len, found.values())), max_unreadable, epath.Path(log))
        self.skipped = len(reasons)
        readable = {name: [path for path in paths if path not in reasons] for name, paths in found.items()}
        small = [name for name, paths in readable.items() if len(paths) < min_pictures]
        if small and not drop_small_identities:
            raise UserError(
                f"{len(small)} of {len(found)} identities under {root} have fewer than {min_pictures} pictures "
                f"(the first: {small[0]}): add some, or drop them with --config.drop_small_identities=True"
            )
        self._paths = {name: paths for name, paths in readable.items() if len(paths) >= min_pictures}
        if not self._paths:
            raise UserError(f"no identity under {root} has {min_pictures} pictures: lower --config.min_pictures")
        self.identities = list(self._paths)

    def count(self, identity: str) -> int:
        """How many readable pictures an identity has."""
        return len(self._paths[identity])

    def pictures(self, identities: Sequence[str]) -> Iterator[Picture]:
        """Reads, cuts, resizes and encodes the pictures of the given identities, in their order."""
        wanted = [(identity, path) for identity in identities for path in self._paths[identity]]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(wanted), _BLOCK):
                yield from pool.map(self._picture, wanted[start : start + _BLOCK])

    def _picture(self, wanted: tuple[str, epath.Path]) -> Picture:
        identity, path = wanted
        buffer = io.BytesIO()
        _open(path, self.image_size).save(buffer, format="PNG", compress_level=1)  # 4 times as fast, 8 % larger
        return Picture(identity, path.name, buffer.getvalue())


def _check(found: dict[str, list[epath.Path]]) -> dict[epath.Path, str]:
    """Decodes every picture; gives the reason for each that cannot be."""
    paths = [path for listed in found.values() for path in listed]
    progress = Progress("reading pictures", len(paths), unit="pictures")
    reasons = {}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for done, (path, reason) in enumerate(zip(paths, pool.map(_trouble, paths), strict=True), start=1):
            if reason:
                reasons[path] = reason
            progress.update(done, unreadable=str(len(reasons)))
    progress.close(unreadable=str(len(reasons)))
    return reasons


def _trouble(path: epath.Path) -> str | None:
    try:
        _open(path, 8)
    except OSError as error:
        return " ".join(str(error).split())
    return None


def _report(root: epath.Path, reasons: dict[epath.Path, str], total: int, limit: float, log: epath.Path) -> None:
    if not reasons:
        log.unlink(missing_ok=True)
        return
    files.write_text(log, "".join(f"{path.relative_to(root)}\t{reason}\n" for path, reason in reasons.items()))
    first = next(iter(reasons))
    if len(reasons) > limit * total:
        raise UserError(
            f"{len(reasons)} of {total} pictures under {root} cannot be read, the first is {first.relative_to(root)} "
            f"(all in {log}): mend or remove them, or raise --config.max_unreadable from {limit:g}"
        )
    logging.warning("%d of %d pictures cannot be read and are left out, see %s", len(reasons), total, log)
