"""A small work directory: made-up pictures as a dataset, and recognisers that were never trained."""

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from sface_jax.core import pictures
from sface_jax.data import dataset, pairs, records
from sface_jax.data.example import Example
from sface_jax.recognition import network

SIZE = 32


def render(identities: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Pictures [n, 32, 32, 3]: an identity is a coarse pattern, its pictures differ by fine noise."""
    coarse = [np.random.default_rng(i).integers(40, 216, (4, 4, 3)) for i in identities]
    seeds = zip(identities, indices, strict=True)
    fine = [np.random.default_rng(seed).integers(-40, 40, (SIZE, SIZE, 3)) for seed in seeds]
    return (np.stack(coarse).repeat(8, axis=1).repeat(8, axis=2) + np.stack(fine)).astype(np.uint8)


def write_dataset(directory: epath.Path, splits: dict[str, int], each: int, first_index: int = 0) -> None:
    """Writes a dataset of `each` pictures for the given number of identities in each split."""
    names, label = [], 0
    for split, identities in splits.items():
        labels = np.repeat(np.arange(label, label + identities), each)
        indices = first_index + np.tile(np.arange(each), identities)
        content = [pictures.encode_png(image) for image in render(labels, indices)]
        named = [f"p{i:03d}/{j}" for i, j in zip(labels, indices, strict=True)]
        examples = [Example(c, int(i), n) for c, i, n in zip(content, labels, named, strict=True)]
        records.write_shard(directory, split, 0, 1, examples)
        names += [f"p{i:03d}" for i in range(label, label + identities)]
        label += identities
    records.finish(directory, image_size=SIZE, class_names=names, splits=dict.fromkeys(splits, 1))


def write_pairs(directory: epath.Path) -> None:
    split = dataset.open(directory)["heldout"]
    drawn = pairs.make_pairs(split.labels, folds=10, pairs_per_fold=4, seed=0)
    pairs.write_pairs_file(directory / "heldout_pairs.txt", drawn, split.labels, split.class_names)


def untrained(seed: int = 0) -> network.Network:
    """A recogniser with random weights, filled in by hand because compiling its initialisers takes seconds."""
    module = network.build(network.architecture("iresnet_narrow", widths=(8, 8, 16), embedding_size=16))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, SIZE, SIZE, 3)))
    rng = np.random.default_rng(seed)

    def fill(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) < 2:
            return np.full(leaf.shape, 0.5, leaf.dtype)
        return (rng.standard_normal(leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])).astype(leaf.dtype)

    return network.Network(module, dict(jax.tree.map(fill, shapes)), network.Preprocessing(size=SIZE))


def write_network(directory: epath.Path, seed: int = 0) -> None:
    network.save(directory, untrained(seed))
