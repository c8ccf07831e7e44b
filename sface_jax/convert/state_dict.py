"""The arrays of StyleGAN2-ADA in PyTorch and here: one table of names and layouts, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sface_jax.core.errors import UserError
from sface_jax.gan.discriminator import Discriminator
from sface_jax.gan.generator import Generator, resolutions

Network = Generator | Discriminator
Arrays = Mapping[str, np.ndarray]
Variables = dict[str, Any]

_BUFFERS = ("w_avg", "noise_const")

# What PyTorch keeps in `resample_filter`: [1,3,3,1] in both directions, with sum 1.
FILTER = (np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64).astype(np.float32)


class Layout(NamedTuple):
    """How an array is brought from there to here and back."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
DENSE = Layout(np.transpose, np.transpose)  # [out, in] and [in, out]
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW and HWIO
CONST = Layout(lambda x: x.transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1))  # CHW and HWC
FLAT = Layout(  # a dense layer on a flattened 4x4 map: [out, C 4 4] and [4 4 C, out]
    lambda x: x.reshape(len(x), -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, len(x)),
    lambda x: x.reshape(4, 4, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
)


class Entry(NamedTuple):
    """One array: its name in PyTorch, and its layout; None for a resampling filter, which is a constant here."""

    name: str
    layout: Layout | None

    @property
    def path(self) -> tuple[str, ...]:
        """Where it lies in our variables: collection, modules, name."""
        *modules, leaf = self.name.split(".")
        if modules[-1] == "fromrgb":
            modules = ["_".join(modules)]
        if leaf == "w_avg":
            modules = []
        return "buffers" if leaf in _BUFFERS else "params", *modules, leaf


def entries(module: Network) -> list[Entry]:
    """Lists every array of a network, in PyTorch's order."""
    table = _generator if isinstance(module, Generator) else _discriminator
    return list(table(resolutions(module.image_size), module.num_classes, module.mapping_layers))


def _generator(sizes: list[int], num_classes: int, mapping_layers: int) -> Iterator[Entry]:
    for size in sizes:
        block = f"synthesis.b{size}"
        if size == 4:
            yield Entry(f"{block}.const", CONST)
        yield Entry(f"{block}.resample_filter", None)
        for layer in ("conv1",) if size == 4 else ("conv0", "conv1"):
            yield Entry(f"{block}.{layer}.weight", CONV)
            yield Entry(f"{block}.{layer}.noise_strength", SAME)
            yield Entry(f"{block}.{layer}.bias", SAME)
            yield Entry(f"{block}.{layer}.resample_filter", None)
            yield Entry(f"{block}.{layer}.noise_const", SAME)
            yield from _layer(f"{block}.{layer}.affine", DENSE)
        yield from _layer(f"{block}.torgb", CONV)
        yield from _layer(f"{block}.torgb.affine", DENSE)
    yield Entry("mapping.w_avg", SAME)
    yield from _mapping(num_classes, mapping_layers)


def _discriminator(sizes: list[int], num_classes: int, mapping_layers: int) -> Iterator[Entry]:
    for size in sizes[:0:-1]:
        block = f"b{size}"
        yield Entry(f"{block}.resample_filter", None)
        for layer in ("fromrgb", "conv0", "conv1") if size == sizes[-1] else ("conv0", "conv1"):
            yield from _layer(f"{block}.{layer}", CONV)
            yield Entry(f"{block}.{layer}.resample_filter", None)
        yield Entry(f"{block}.skip.weight", CONV)
        yield Entry(f"{block}.skip.resample_filter", None)
    if num_classes:
        yield from _mapping(num_classes, mapping_layers)
    yield from _layer("b4.conv", CONV)
    yield Entry("b4.conv.resample_filter", None)
    yield from _layer("b4.fc", FLAT)
    yield from _layer("b4.out", DENSE)


def _mapping(num_classes: int, layers: int) -> Iterator[Entry]:
    if num_classes:
        yield from _layer("mapping.embed", DENSE)
    for layer in range(layers):
        yield from _layer(f"mapping.fc{layer}", DENSE)


def _layer(name: str, layout: Layout) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", layout)
    yield Entry(f"{name}.bias", SAME)


def to_variables(module: Network, arrays: Arrays) -> Variables:
    """Brings every array of a state dict to its place in a module's variables.

    Args:
        module: the network that the state dict describes.
        arrays: name -> array; resampling filters may be left out. Types other than float32 are cast.

    Raises:
        UserError: an array is missing, unknown or of another shape, or a filter is not [1,3,3,1].
    """
    table = entries(module)
    required = {entry.name for entry in table if entry.layout}
    _compare(arrays, required, {entry.name for entry in table} - required)
    flat, shapes = {}, _shapes(module)
    for entry in table:
        if entry.layout:
            array = arrays[entry.name]
            # A view of one number has the shape and takes no memory.
            _check(entry.name, array, entry.layout.theirs(np.broadcast_to(np.float32(0), shapes[entry.path])).shape)
            flat[entry.path] = np.array(entry.layout.ours(array), np.float32, order="C")
        elif entry.name in arrays and not np.array_equal(arrays[entry.name], FILTER):
            raise UserError(f"{entry.name} is not [1,3,3,1]: networks that resample with another filter do not fit")
    return unflatten_dict(flat)


def from_variables(module: Network, variables: Variables) -> dict[str, np.ndarray]:
    """Turns a module's variables into the state dict that PyTorch would have, resampling filters included.

    Raises:
        UserError: the variables are not the module's.
    """
    shapes = _shapes(module)
    flat = flatten_dict(variables)
    _compare(map("/".join, flat), set(map("/".join, shapes)))
    arrays = {}
    for entry in entries(module):
        if entry.layout:
            array = np.asarray(flat[entry.path])
            _check("/".join(entry.path), array, shapes[entry.path])
            arrays[entry.name] = np.array(entry.layout.theirs(array), order="C")
        else:
            arrays[entry.name] = FILTER.copy()
    return arrays


def _shapes(module: Network) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of a module's variables by their paths, traced and never computed."""
    side = module.image_size - 2 * module.crop
    shape = (1, module.z_dim) if isinstance(module, Generator) else (1, side, side, module.image_channels)
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _compare(names: Iterable[str], required: set[str], optional: Iterable[str] = ()) -> None:
    """Accounts for every name, or tells which are missing and which nobody knows."""
    found = list(names)
    missing = sorted(required.difference(found))
    unknown = [name for name in found if name not in required.union(optional)]
    told = [f"{how}: {_some(names)}" for how, names in (("missing", missing), ("unknown", unknown)) if names]
    if told:
        raise UserError(f"these are not the arrays of a StyleGAN2-ADA network ({'; '.join(told)})")


def _some(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise UserError(f"{name} has the shape {array.shape}, and the other arrays ask for {shape}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} holds {array.dtype} in place of real numbers")
