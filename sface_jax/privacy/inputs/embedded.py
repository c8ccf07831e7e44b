"""What a matcher sees of the sets of an audit: embeddings, kept on disk block by block."""

from __future__ import annotations

import hashlib

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float32

from sface_jax.core import mesh
from sface_jax.core.errors import UserError
from sface_jax.privacy.inputs.sets import Sets
from sface_jax.privacy.inputs.sources import Pictures, Rows, Source
from sface_jax.privacy.relations import Faces
from sface_jax.recognition.network import Network, fingerprint
from sface_jax.verification import cache
from sface_jax.verification.embed import embed

BLOCK = 1 << 16
"""Pictures whose embeddings are kept in one file: as much is lost when a run is interrupted."""


def embed_sets(
    folder: epath.Path, matcher: str, network: Network | None, sets: Sets, *, batch_size: int, flip: str
) -> dict[str, Faces]:
    """Embeds the pictures of all sets, or reads what was kept of them or given in their place.

    Args:
        folder: of all that is kept; a matcher's blocks go to `<folder>/<matcher>/<set>/<number>.npz`, and stay good
            until its weights or the pixels of the block's pictures change.
        matcher: its name.
        network: the recogniser; None where all sets are embeddings.
        sets: the sets.
        batch_size: see `verification.embed.embed`; smaller sets are filled up to it, so that all share one program.
        flip: likewise.

    Returns:
        Rows of length one and their labels, by set.

    Raises:
        UserError: there are pictures but no network, an embedding is zero or not finite, or the sets' embeddings differ
            in width, so that one network cannot have made them.
    """
    rows: dict[str, Float32[np.ndarray, "n d"]] = {}
    given = []
    for name, source in sets.sources.items():
        if isinstance(source.faces, Rows):
            rows[name] = source.faces.of(matcher).unit(source.faces.positions)
            given.append(name)
    pictured = {name: source for name, source in sets.sources.items() if isinstance(source.faces, Pictures)}
    if pictured and network is None:
        raise UserError(f"{', '.join(pictured)} are pictures: set --config.matchers to a network that embeds them")
    if pictured and given:
        logging.warning("%s: embeddings of %s are taken for its own", matcher, ", ".join(given))
    key = fingerprint(network) if pictured and network else ""
    for name, source in pictured.items():
        rows[name] = _embed(folder / matcher / name, key, network, source, batch_size=batch_size, flip=flip)
    widths = {name: found.shape[1] for name, found in rows.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{width} of {name}" for name, width in widths.items())
        raise UserError(f"embeddings of {matcher} differ in width ({told}): all must be of one network")
    return {name: Faces(rows[name], source.labels) for name, source in sets.sources.items()}


def _embed(
    folder: epath.Path, key: str, network: Network, source: Source, *, batch_size: int, flip: str
) -> Float32[np.ndarray, "n d"]:
    """The embeddings of a set's pictures; what is missing is made, and kept a block at a time."""
    blocks = [slice(start, start + BLOCK) for start in range(0, len(source), BLOCK)]
    paths = [folder / f"{number:05d}.npz" for number in range(len(blocks))]
    keys = [_key(key, flip, source.hashes[block]) for block in blocks]
    missing, rows = [], None
    # All processes look before any of them writes, so that all take the same way.
    for number, block in enumerate(blocks):
        kept = cache.stored(paths[number], keys[number])
        if kept is None:
            missing.append(number)
        else:
            rows = _placed(rows, block, kept["embeddings"], len(source))
    images = source.faces.at(network.preprocessing.size)
    for number in missing:
        block, told = blocks[number], f"embedding {source.name}"
        made = embed(
            network,
            images,
            source.faces.positions[block],
            batch_size=batch_size,
            flip=flip,
            whole_batches=True,
            progress=told + (f", block {number + 1} of {len(blocks)}" if len(blocks) > 1 else ""),
        )
        wrong = ~np.isfinite(made).all(1) | ~made.any(1)
        if wrong.any():
            first = source.faces.name(block.start + int(wrong.argmax()))
            raise UserError(
                f"the matcher gives no finite embedding for {int(wrong.sum()):,} pictures of {source.name}, such as "
                f"{first}: choose another"
            )
        if mesh.is_lead():
            cache.keep(paths[number], keys[number], embeddings=made)
        rows = _placed(rows, block, made, len(source))
    return rows


def _placed(
    rows: Float32[np.ndarray, "n d"] | None, block: slice, made: Float32[np.ndarray, "b d"], count: int
) -> Float32[np.ndarray, "n d"]:
    """Puts a block in its place among the rows, which are made for the first one."""
    rows = np.empty((count, made.shape[1]), np.float32) if rows is None else rows
    rows[block] = made
    return rows


def _key(network: str, flip: str, hashes: np.ndarray) -> str:
    return hashlib.sha256(f"{network} {flip} ".encode() + hashes.tobytes()).hexdigest()
