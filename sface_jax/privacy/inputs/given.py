"""Embeddings that were made elsewhere: `.npy` with labels beside it, or `.npz` with both."""

from __future__ import annotations

import zipfile
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float32, Int, Int32

from sface_jax.core import files
from sface_jax.core.errors import UserError

SUFFIXES = (".npy", ".npz")
MATCHER = "{matcher}"
"""What stands in a path for the name of the matcher that made the embeddings."""

_BLOCK = 1 << 14  # rows checked at a time


class Given(NamedTuple):
    """Embeddings as they lie in a file.

    Attributes:
        path: the file.
        embeddings: rows of any length but zero; of a `.npy`, mapped from the disk.
        labels: the identity of each row, as its place in `names`; None where the file does not tell.
        names: of the identities.
    """

    path: str
    embeddings: np.ndarray
    labels: Int32[np.ndarray, " n"] | None
    names: list[str]

    def called(self, position: int) -> str:
        """What lists and messages call a row."""
        return f"row {position}"

    def unit(self, positions: Int[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """The rows at some positions, divided by their lengths.

        Raises:
            UserError: one of them is not finite, or zero.
        """
        rows = np.empty((len(positions), self.embeddings.shape[1]), np.float32)
        for start in range(0, len(positions), _BLOCK):
            chosen = positions[start : start + _BLOCK]
            block = self.embeddings[chosen].astype(np.float64)
            length = np.linalg.norm(block, axis=1, keepdims=True)
            wrong = ~(np.isfinite(block).all(1) & (length[:, 0] > 0))
            if wrong.any():
                raise UserError(f"row {chosen[wrong][0]} of {self.path} is zero or not finite: embed that picture anew")
            rows[start : start + _BLOCK] = block / length
        return rows


def is_given(path: str) -> bool:
    """Whether a path names embeddings rather than pictures."""
    return path.endswith(SUFFIXES)


def read(path: str) -> Given:
    """Opens embeddings.

    Args:
        path: `X.npy` with [n, d] numbers, and in `X.labels.npy` their [n] labels, whole numbers or texts, where they
            are known; or `X.npz` with "embeddings", "labels" where they are known, and "names" of the identities by
            label where these are numbers from 0.

    Raises:
        UserError: there is no such file, it holds something else, the labels are not as many as the embeddings, or two
            identities have one name.
    """
    found = _arrays(path)
    embeddings, labels, names = found.get("embeddings"), found.get("labels"), found.get("names")
    if embeddings is None:
        raise UserError(f'{path} has {", ".join(found) or "nothing"}: it needs an array "embeddings" of [n, d] numbers')
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or 0 in embeddings.shape:
        raise UserError(f"{path} holds {embeddings.dtype} {list(embeddings.shape)}: embeddings are [n, d] real numbers")
    if labels is None:
        return Given(path, embeddings, None, [])
    if labels.shape != embeddings.shape[:1] or labels.dtype.kind not in "iuUS":
        raise UserError(
            f"the labels of {path} are {labels.dtype} {list(labels.shape)}: they must be {len(embeddings)} whole "
            f"numbers or texts, one for each embedding"
        )
    known, places = np.unique(labels, return_inverse=True)
    if names is None:
        called = [name.decode() if isinstance(name, bytes) else str(name) for name in known.tolist()]
    elif known.dtype.kind in "iu" and known[0] >= 0 and known[-1] < len(names):
        called = [str(names[label]) for label in known.tolist()]
    else:
        raise UserError(f"{path} names {len(names)} identities, but its labels are not numbers below that")
    if len(set(called)) < len(called):
        raise UserError(f"{path} gives two identities one name: give each its own, or one label to both")
    return Given(path, embeddings, places.astype(np.int32), called)


def _arrays(path: str) -> dict[str, np.ndarray]:
    if not epath.Path(path).exists():
        raise UserError(f"there are no embeddings at {path}: write them there, or name pictures")
    try:
        if path.endswith(".npy"):
            beside = epath.Path(path.removesuffix(".npy") + ".labels.npy")
            found = {"embeddings": files.read_npy(path)}
            return found | ({"labels": np.asarray(files.read_npy(beside))} if beside.exists() else {})
        with epath.Path(path).open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as NumPy writes it ({' '.join(str(error).split())})") from error
