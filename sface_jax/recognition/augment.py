"""Changes made to training pictures, as `config.augmentations` names them: ("flip", "randaugment(layers=4)").

Most are made on the device, all pictures of a batch at once, each as a function of a key; those that need Pillow are
made where pictures are decoded. To add one to the device's, write a function whose options are its keyword-only
arguments, shares in [0, 1], and name it in `DEVICE`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from sface_jax.core import specs
from sface_jax.core.errors import UserError
from sface_jax.data import pipeline
from sface_jax.data.randaugment import randaugment

Pictures = Float[Array, "n h w c"]
"""0..255."""

FLIPPED = 0.5
"""Share of the pictures that `flip` mirrors by default."""


def check(names: Sequence[str]) -> None:
    """Raises UserError where a spec is malformed, or its name or an option is not known or out of range."""
    for spec in names:
        specs.make(spec, _KNOWN, "config.augmentations")
    if len(there := [spec for spec in names if _name(spec) in WORKER]) > 1:
        raise UserError(f"config.augmentations has both {there[0]} and {there[1]}: choose one")


def on_device(names: Sequence[str]) -> tuple[str, ...]:
    """Those of a config's changes that are made on the device, see `apply`."""
    return tuple(spec for spec in names if _name(spec) not in WORKER)


def in_workers(names: Sequence[str]) -> pipeline.Augment | None:
    """What the input pipeline does to each picture, see `data.pipeline.batches`; None where that is nothing."""
    there = [spec for spec in names if _name(spec) in WORKER]
    return specs.make(there[0], WORKER, "config.augmentations") if there else None


def describe(names: Sequence[str]) -> str:
    """Says in a line, for the log, what is done to the pictures and where."""
    here = on_device(names)
    groups = ([spec for spec in names if spec not in here], "in the input pipeline"), (here, "on the device")
    return "augmentations: " + ("; ".join(f"{', '.join(group)} {place}" for group, place in groups if group) or "none")


def apply(names: Sequence[str], key: Key[Array, ""], pictures: Pictures) -> Pictures:
    """Makes the device's changes, in order.

    Args:
        names: of `DEVICE`, with options; see `on_device`.
        key: all draws come from it.
        pictures: 0..255.
    """
    for i, spec in enumerate(names):
        pictures = specs.make(spec, _KNOWN, "config.augmentations")(jax.random.fold_in(key, i), pictures)
    return pictures


def mirrored(names: Sequence[str], key: Key[Array, ""], n: int) -> Bool[Array, " n"]:
    """Which pictures `apply` leaves mirrored.

    Args:
        names: as given to `apply`.
        key: as given to `apply`.
        n: number of pictures.
    """
    turned = jnp.zeros(n, bool)
    for i, spec in enumerate(names):
        name, options = specs.parse(spec)
        if name == flip.__name__:
            turned ^= _chosen(jax.random.fold_in(key, i), n, options.get("probability", FLIPPED))
    return turned


def flip(key: Key[Array, ""], pictures: Pictures, *, probability: float = FLIPPED) -> Pictures:
    """Mirrors each picture with this probability."""
    return _some(_chosen(key, len(pictures), probability), pictures[:, :, ::-1], pictures)


def translate(key: Key[Array, ""], pictures: Pictures, *, share: float = 1 / 16) -> Pictures:
    """Shifts each picture by whole pixels, up to this share of its side; its edge is repeated."""
    n, height, width, _ = pictures.shape
    limit = max(1, round(share * max(height, width)))
    shifts = jax.random.randint(key, (n, 2), -limit, limit + 1)
    rows = jnp.clip(jnp.arange(height) + shifts[:, :1], 0, height - 1)  # [n,h]
    columns = jnp.clip(jnp.arange(width) + shifts[:, 1:], 0, width - 1)  # [n,w]
    return jax.vmap(lambda picture, row, column: picture[row][:, column])(pictures, rows, columns)


def light(key: Key[Array, ""], pictures: Pictures, *, gain: float = 0.2) -> Pictures:
    """Scales each picture's brightness and its contrast about its mean, each by a factor within 1 +- `gain`."""
    brightness, contrast = jax.random.uniform(key, (2, len(pictures), 1, 1, 1), minval=1 - gain, maxval=1 + gain)
    mean = pictures.mean((1, 2, 3), keepdims=True)
    return jnp.clip((mean + (pictures - mean) * contrast) * brightness, 0, 255)


def grey(key: Key[Array, ""], pictures: Pictures, *, probability: float = 0.1) -> Pictures:
    """Takes the colour out of each picture with this probability (ITU-R BT.601 luma)."""
    luma = (pictures * jnp.array([0.299, 0.587, 0.114])).sum(3, keepdims=True)
    return _some(_chosen(key, len(pictures), probability), luma, pictures)


def crop(key: Key[Array, ""], pictures: Pictures, *, probability: float = 0.2, smallest: float = 0.2) -> Pictures:
    """Keeps a rectangle of each picture in its place, on black, with this probability, as AdaFace's training does.

    Its area is a share of the picture's in [smallest, 1], its width to height 3/4 to 4/3, cut at the picture's sides.
    """
    n, height, width, _ = pictures.shape
    keys = jax.random.split(key, 4)
    area = jax.random.uniform(keys[0], (n,), minval=smallest, maxval=1)
    aspect = (4 / 3) ** jax.random.uniform(keys[1], (n,), minval=-1, maxval=1)
    sides = jnp.minimum(jnp.sqrt(jnp.stack([area / aspect, area * aspect])), 1)  # [2,n], shares of height and width
    starts = jax.random.uniform(keys[2], (2, n)) * (1 - sides)
    rows, columns = (
        (places >= start[:, None]) & (places <= (start + side)[:, None])
        for places, start, side in zip(map(_centres, (height, width)), starts, sides, strict=True)
    )  # [n,h], [n,w]
    kept = (rows[:, :, None] & columns[:, None, :])[..., None]
    return _some(_chosen(keys[3], n, probability), jnp.where(kept, pictures, 0), pictures)


def low_resolution(
    key: Key[Array, ""], pictures: Pictures, *, probability: float = 0.2, smallest: float = 0.2
) -> Pictures:
    """Shrinks each picture to a share of its side in [smallest, 1] and enlarges it again, with this probability.

    Linear interpolation, with anti-aliasing where it shrinks.
    """
    n, height, width, _ = pictures.shape
    keys = jax.random.split(key)
    share = jax.random.uniform(keys[0], (n,), minval=smallest, maxval=1)
    rows, columns = _shrink_and_enlarge(height, share), _shrink_and_enlarge(width, share)
    exact = jax.lax.Precision.HIGHEST  # else some accelerators round to 8 bits on the way
    blurred = jnp.einsum("nij,njkc->nikc", rows, pictures, precision=exact)
    blurred = jnp.einsum("nij,nkjc->nkic", columns, blurred, precision=exact)
    return _some(_chosen(keys[1], n, probability), blurred, pictures)


DEVICE = {
    "flip": flip,
    "translate": translate,
    "light": light,
    "grey": grey,
    "crop": crop,
    "low_resolution": low_resolution,
}

WORKER: dict[str, Callable[..., pipeline.Augment]] = {"randaugment": randaugment}


def _name(spec: str) -> str:
    return specs.parse(spec)[0]


def _bound(function: Callable[..., Pictures]) -> Callable[..., Callable[..., Pictures]]:
    """The function of a change's options, for `specs.make`."""

    def bind(**options: float) -> Callable[..., Pictures]:
        for option, value in options.items():
            if not 0 <= value <= 1:
                raise UserError(f"config.augmentations: {function.__name__} has {option}={value}: set it in 0..1")
        return functools.partial(function, **options)

    parameters = inspect.signature(function).parameters.values()
    bind.__signature__ = inspect.Signature([p for p in parameters if p.kind is p.KEYWORD_ONLY])
    return bind


def _chosen(key: Key[Array, ""], n: int, probability: float) -> Bool[Array, " n"]:
    """Draws which pictures are changed."""
    return jax.random.bernoulli(key, probability, (n,))


def _some(chosen: Bool[Array, " n"], changed: Float[Array, "n h w _"], pictures: Pictures) -> Pictures:
    return jnp.where(chosen[:, None, None, None], changed, pictures)


def _centres(size: int) -> Float[Array, " s"]:
    """Where pixels lie, as shares of the side."""
    return (jnp.arange(size) + 0.5) / size


def _shrink_and_enlarge(size: int, share: Float[Array, " n"]) -> Float[Array, "n s s"]:
    """Matrices that take `size` pixels to round(share * size) and back."""
    kept = jnp.maximum(jnp.round(share * size), 1)[:, None, None]
    small, pixel = (jnp.arange(size)[:, None] + 0.5) * size / kept, jnp.arange(size) + 0.5  # [n,s,1], [s]
    overlap = jnp.maximum(1 - jnp.abs(small - pixel) * kept / size, 0)  # [n,s,s], small pixel k and pixel i
    down = overlap / overlap.sum(2, keepdims=True).clip(1e-6)
    up = jnp.where(jnp.arange(size)[:, None] < kept, overlap, 0).swapaxes(1, 2)
    return jnp.matmul(up / up.sum(2, keepdims=True), down, precision=jax.lax.Precision.HIGHEST)


_KNOWN = {name: _bound(function) for name, function in DEVICE.items()} | WORKER
