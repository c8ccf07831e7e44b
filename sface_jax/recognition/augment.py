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
import numpy as np
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
    """Scales each picture's brightness and its contrast about its mean, each by a factor within 1 +- `gain`.

    Mild, for every picture. `photometric` does the same and more to some of them: choose one of the two.
    """
    brightness, contrast = jax.random.uniform(key, (2, len(pictures), 1, 1, 1), minval=1 - gain, maxval=1 + gain)
    mean = pictures.mean((1, 2, 3), keepdims=True)
    return jnp.clip((mean + (pictures - mean) * contrast) * brightness, 0, 255)


def grey(key: Key[Array, ""], pictures: Pictures, *, probability: float = 0.1) -> Pictures:
    """Takes the colour out of each picture with this probability (ITU-R BT.601 luma)."""
    return _some(_chosen(key, len(pictures), probability), _luma(pictures), pictures)


def photometric(
    key: Key[Array, ""],
    pictures: Pictures,
    *,
    probability: float = 0.2,
    brightness: float = 0.5,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 0.0,
) -> Pictures:
    """Jitters brightness, contrast, saturation and hue with this probability, as AdaFace's training does (hue 0 there).

    Always in this order, clipped to 0..255 after each: x b; m + (x - m) c, where m is the picture's mean luma; chroma
    times s and turned by h, in YIQ. The factors b, c and s are drawn within 1 +- the option of that name, h within +-
    `hue` of a full turn. `light` is milder and for every picture: choose one of the two.
    """
    n = len(pictures)
    keys = jax.random.split(key)
    draws = jax.random.uniform(keys[0], (4, n, 1, 1, 1), minval=-1, maxval=1)
    factors = 1 + draws[:3] * jnp.array([brightness, contrast, saturation]).reshape(3, 1, 1, 1, 1)
    changed = jnp.clip(pictures * factors[0], 0, 255)
    mean = _luma(changed).mean((1, 2, 3), keepdims=True)
    changed = jnp.clip(mean + (changed - mean) * factors[1], 0, 255)
    angle = draws[3, :, 0, 0, 0] * (2 * np.pi * hue)
    changed = _mix(_chroma(factors[2, :, 0, 0, 0], angle), changed, "nij,nhwj->nhwi")
    return _some(_chosen(keys[1], n, probability), jnp.clip(changed, 0, 255), pictures)


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
    kept = _inside(starts, sides, height, width)
    return _some(_chosen(keys[3], n, probability), jnp.where(kept, pictures, 0), pictures)


def resized_crop(
    key: Key[Array, ""],
    pictures: Pictures,
    *,
    probability: float = 1.0,
    smallest: float = 0.7,
    largest: float = 1.0,
    narrowest: float = 0.75,
) -> Pictures:
    """Enlarges a rectangle of each picture to the full picture, linearly, with this probability.

    Its area is a share of the picture's in [smallest, largest], its width to height in [narrowest, 1 / narrowest]. A
    face that has been aligned is so put out of line: where that is not wanted take `crop`, which leaves it in place.
    """
    n, height, width, _ = pictures.shape
    keys = jax.random.split(key)
    starts, sides = _rectangles(keys[0], n, smallest, largest, narrowest)
    rows, columns = (_enlarge(size, starts[i], sides[i]) for i, size in enumerate((height, width)))
    return _some(_chosen(keys[1], n, probability), _resampled(pictures, rows, columns), pictures)


def erase(
    key: Key[Array, ""],
    pictures: Pictures,
    *,
    probability: float = 0.5,
    smallest: float = 0.02,
    largest: float = 0.4,
    narrowest: float = 0.3,
    level: float | None = None,
) -> Pictures:
    """Overwrites a rectangle of each picture with this probability: random erasing (Zhong et al., arXiv 1708.04896).

    Its area is a share of the picture's in [smallest, largest], its width to height in [narrowest, 1 / narrowest]. It
    is filled with noise, uniform in 0..255; or, with `level`, with one grey: 0 is black, 0.5 what the network sees as
    0, which is about the mean of aligned faces, and 1 white.
    """
    n, height, width, _ = pictures.shape
    keys = jax.random.split(key, 3)
    erased = _inside(*_rectangles(keys[0], n, smallest, largest, narrowest), height, width)
    fill = jax.random.uniform(keys[2], pictures.shape, maxval=255) if level is None else 255 * level
    return _some(_chosen(keys[1], n, probability), jnp.where(erased, fill, pictures), pictures)


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
    return _some(_chosen(keys[1], n, probability), _resampled(pictures, rows, columns), pictures)


DEVICE = {
    "flip": flip,
    "translate": translate,
    "light": light,
    "photometric": photometric,
    "grey": grey,
    "crop": crop,
    "resized_crop": resized_crop,
    "low_resolution": low_resolution,
    "erase": erase,
}

WORKER: dict[str, Callable[..., pipeline.Augment]] = {"randaugment": randaugment}


_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""NTSC's luma and chroma of red, green and blue; the luma is that of ITU-R BT.601."""


def _name(spec: str) -> str:
    return specs.parse(spec)[0]


def _bound(function: Callable[..., Pictures]) -> Callable[..., Callable[..., Pictures]]:
    """The function of a change's options, for `specs.make`."""

    def bind(**options: float) -> Callable[..., Pictures]:
        for option, value in options.items():
            if not 0 <= value <= 1:
                raise UserError(f"config.augmentations: {function.__name__} has {option}={value}: set it in 0..1")
        given = defaults | options
        if given.get("smallest", 0) > given.get("largest", 1):
            raise UserError(
                f"config.augmentations: {function.__name__} has smallest={given['smallest']} above "
                f"largest={given['largest']}"
            )
        return functools.partial(function, **options)

    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in parameters}
    bind.__signature__ = inspect.Signature(parameters)
    return bind


def _chosen(key: Key[Array, ""], n: int, probability: float) -> Bool[Array, " n"]:
    """Draws which pictures are changed."""
    return jax.random.bernoulli(key, probability, (n,))


def _some(chosen: Bool[Array, " n"], changed: Float[Array, "n h w _"], pictures: Pictures) -> Pictures:
    return jnp.where(chosen[:, None, None, None], changed, pictures)


def _rectangles(
    key: Key[Array, ""], n: int, smallest: float, largest: float, narrowest: float
) -> tuple[Float[Array, "2 n"], Float[Array, "2 n"]]:
    """Draws rectangles that lie within the picture, uniform in area and in place.

    The logarithm of width to height is uniform among those at which the area fits: no rectangle has to be cut, or
    drawn again, to be of its area.

    Returns:
        Starts and sides, as shares of height (row 0) and width (row 1).
    """
    keys = jax.random.split(key, 3)
    area = jax.random.uniform(keys[0], (n,), minval=smallest, maxval=largest)
    limit = -jnp.log(jnp.maximum(area, max(narrowest, 1e-3)))  # so that sides area ** .5 * aspect ** +-.5 are at most 1
    aspect = jnp.exp(jax.random.uniform(keys[1], (n,), minval=-1, maxval=1) * limit)
    sides = jnp.sqrt(jnp.stack([area / aspect, area * aspect]))
    return jax.random.uniform(keys[2], (2, n)) * (1 - sides), sides


def _inside(
    starts: Float[Array, "2 n"], sides: Float[Array, "2 n"], height: int, width: int
) -> Bool[Array, "n {height} {width} 1"]:
    """Which pixels have their centre in the rectangle."""
    rows, columns = (
        (places >= start[:, None]) & (places <= (start + side)[:, None])
        for places, start, side in zip(map(_centres, (height, width)), starts, sides, strict=True)
    )  # [n,h], [n,w]
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _luma(pictures: Pictures) -> Float[Array, "n h w 1"]:
    return (pictures * jnp.asarray(_YIQ[0], jnp.float32)).sum(3, keepdims=True)


def _chroma(factor: Float[Array, " n"], angle: Float[Array, " n"]) -> Float[Array, "n 3 3"]:
    """Matrices on red, green and blue that keep the luma, scale the chroma and turn it by an angle in radians."""
    zero, cosine, sine = jnp.zeros_like(angle), factor * jnp.cos(angle), factor * jnp.sin(angle)
    rows = (zero + 1, zero, zero), (zero, cosine, -sine), (zero, sine, cosine)
    turned = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)  # [n,3,3]
    back, there = jnp.asarray(np.linalg.inv(_YIQ), jnp.float32), jnp.asarray(_YIQ, jnp.float32)
    return _mix(back, _mix(turned, there, "nij,jk->nik"), "ij,njk->nik")


def _resampled(pictures: Pictures, rows: Float[Array, "n h h"], columns: Float[Array, "n w w"]) -> Pictures:
    """Applies one matrix along the height and one along the width of each picture."""
    changed = _mix(columns, _mix(rows, pictures, "nij,njkc->nikc"), "nij,nkjc->nkic")
    return jnp.clip(changed, 0, 255)  # rounding may leave 255.00002


def _mix(weights: Float[Array, "*_"], values: Float[Array, "*_"], axes: str) -> Float[Array, "*_"]:
    """`jnp.einsum` in full float32, which some accelerators would round to 8 bits on the way."""
    return jnp.einsum(axes, weights, values, precision=jax.lax.Precision.HIGHEST)


def _enlarge(size: int, start: Float[Array, " n"], side: Float[Array, " n"]) -> Float[Array, "n s s"]:
    """Matrices that take the pixels from `start` on, a share `side` of all `size`, to `size` pixels, linearly."""
    wanted = (start[:, None] + _centres(size) * side[:, None]) * size  # [n,s], places in pixels
    overlap = jnp.maximum(1 - jnp.abs(wanted[:, :, None] - _centres(size) * size), 0)  # [n,s,s], new and old pixel
    return overlap / overlap.sum(2, keepdims=True)  # beyond the outermost centres the picture goes on as it ends


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
    return _mix(up / up.sum(2, keepdims=True), down, "nij,njk->nik")


_KNOWN = {name: _bound(function) for name, function in DEVICE.items()} | WORKER
