"""The augmentations between pictures and discriminator, and the control of their probability (ADA, arXiv 2006.06676).

What is drawn is apart from what is done: `draw` gives a value of every transform for every picture, `apply` is a
differentiable (and twice differentiable) function of pictures and values. Everything linear in a picture but the
look-up of the warp is a product with a constant matrix: mirrored border, resampling and band filters cost two small
products a picture, and so do their gradients.
"""

from __future__ import annotations

import difflib
import functools
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from sface_jax.core.arrays import AnyArray
from sface_jax.core.errors import UserError

BLIT = ("xflip", "rotate90", "xint")
GEOMETRY = (*BLIT, "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
CORRUPTION = ("imgfilter", "noise", "cutout")

SETS = {
    "blit": BLIT,
    "geom": GEOMETRY[len(BLIT) :],
    "color": COLOUR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": GEOMETRY,
    "bgc": GEOMETRY + COLOUR,
    "bgcf": (*GEOMETRY, *COLOUR, "imgfilter"),
    "bgcfn": (*GEOMETRY, *COLOUR, "imgfilter", "noise"),
    "bgcfnc": GEOMETRY + COLOUR + CORRUPTION,
}
"""Named sets of transforms, as in the paper's figures."""

# Symlet-6 and symlet-2 (Daubechies 1992), low-pass, of sum 1.
SYMLET6 = np.array(
    [0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
     0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
     0.0017677118642428036, -0.007800708325034148]
) / math.sqrt(2)  # fmt: skip
SYMLET2 = np.array([1 + math.sqrt(3), 3 + math.sqrt(3), 3 - math.sqrt(3), 1 - math.sqrt(3)]) / 8

Images = Float[AnyArray, "n h w c"]
PerPicture = Float[AnyArray, " n"]


class Transforms(flax.struct.PyTreeNode):
    """One value of every transform for each picture.

    Attributes:
        xflip: 1 mirrors left and right, 0 does not.
        rotate90: quarter turns.
        xint: shift right and down, in widths and heights, rounded to pixels.
        scale: above 1 enlarges.
        rotate_pre: angle before the stretch, in radians.
        aniso: stretch of x by this, of y by its inverse.
        rotate_post: angle after the stretch.
        xfrac: shift right and down, in widths and heights.
        brightness: added to all channels.
        contrast: factor on all channels.
        lumaflip: 1 reflects colours about the plane orthogonal to the grey axis.
        hue: rotation about the grey axis, in radians.
        saturation: factor on what is orthogonal to the grey axis.
        imgfilter: gain of each of four frequency bands, lowest first.
        noise: standard deviation of white noise.
        cutout_size: side of the box set to 0, in widths and heights.
        cutout_center: its centre, 0 ... 1 from the left and from the top.
    """

    xflip: PerPicture
    rotate90: PerPicture
    xint: Float[AnyArray, "n 2"]
    scale: PerPicture
    rotate_pre: PerPicture
    aniso: PerPicture
    rotate_post: PerPicture
    xfrac: Float[AnyArray, "n 2"]
    brightness: PerPicture
    contrast: PerPicture
    lumaflip: PerPicture
    hue: PerPicture
    saturation: PerPicture
    imgfilter: Float[AnyArray, "n 4"]
    noise: PerPicture
    cutout_size: PerPicture
    cutout_center: Float[AnyArray, "n 2"]


def kinds_of(names: str) -> tuple[str, ...]:
    """The transforms of a config value: one of `SETS`, or transforms separated by commas; "" is none.

    Raises:
        UserError: a name is unknown.
    """
    if names in SETS:
        return SETS[names]
    known = SETS["bgcfnc"]
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *SETS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose a set of {', '.join(SETS)}, or transforms"
            raise UserError(f"there is no augmentation {name!r}: {hint}")
    return tuple(name for name in known if name in asked)


def draw(key: Key[Array, ""], n: int, probability: Float[AnyArray, ""] | float, kinds: tuple[str, ...]) -> Transforms:
    """Draws the transforms of n pictures.

    Each transform of `kinds` is on with the given probability, each of the four bands on its own, each of the two
    rotations with 1 - sqrt(1 - p), so that a picture is rotated with probability p. Others are neutral.

    Args:
        key: randomness.
        n: pictures.
        probability: p; above 1 counts as 1.
        kinds: from `kinds_of`.
    """
    p = jnp.clip(jnp.asarray(probability, jnp.float32), 0.0, 1.0)
    # One draw for all values: a random kernel for each would take longer to compile than the rest.
    gates, uniform = jax.random.uniform(key, (2, n, 24))
    normal = jax.scipy.special.ndtri(jnp.clip(uniform, 1e-6, 1 - 1e-6))
    places = iter(range(24))

    def on(
        kind: str, value: Float[Array, "n *k"], neutral: float, column: int, p: Float[Array, ""]
    ) -> Float[Array, "n *k"]:
        gate = gates[:, column : column + 1] < p if kind in kinds else jnp.zeros((n, 1), bool)
        return jnp.where(gate if value.ndim > 1 else gate[:, 0], value, neutral)

    def one(kind: str, of: Float[Array, "n k"], neutral: float, function, p: Float[Array, ""] = p) -> PerPicture:
        column = next(places)
        return on(kind, function(of[:, column]), neutral, column, p)

    def two(kind: str, of: Float[Array, "n k"], neutral: float, function) -> Float[Array, "n 2"]:
        column, other = next(places), next(places)
        return on(kind, function(of[:, [column, other]]), neutral, column, p)

    turn = 1 - jnp.sqrt(1 - p)
    return Transforms(
        xflip=one("xflip", uniform, 0.0, lambda u: jnp.floor(2 * u)),
        rotate90=one("rotate90", uniform, 0.0, lambda u: jnp.floor(4 * u)),
        xint=two("xint", uniform, 0.0, lambda u: 0.125 * (2 * u - 1)),
        scale=one("scale", normal, 1.0, lambda x: 2 ** (0.2 * x)),
        rotate_pre=one("rotate", uniform, 0.0, lambda u: math.pi * (2 * u - 1), turn),
        aniso=one("aniso", normal, 1.0, lambda x: 2 ** (0.2 * x)),
        rotate_post=one("rotate", uniform, 0.0, lambda u: math.pi * (2 * u - 1), turn),
        xfrac=two("xfrac", normal, 0.0, lambda x: 0.125 * x),
        brightness=one("brightness", normal, 0.0, lambda x: 0.2 * x),
        contrast=one("contrast", normal, 1.0, lambda x: 2 ** (0.5 * x)),
        lumaflip=one("lumaflip", uniform, 0.0, lambda u: jnp.floor(2 * u)),
        hue=one("hue", uniform, 0.0, lambda u: math.pi * (2 * u - 1)),
        saturation=one("saturation", normal, 1.0, lambda x: 2**x),
        imgfilter=jnp.stack([one("imgfilter", normal, 1.0, lambda x: 2**x) for _ in range(4)], axis=1),
        noise=one("noise", normal, 0.0, lambda x: 0.1 * jnp.abs(x)),
        cutout_size=one("cutout", uniform, 0.0, lambda u: jnp.full_like(u, 0.5)),
        cutout_center=uniform[:, [next(places), next(places)]],
    )


def apply(images: Images, transforms: Transforms, kinds: tuple[str, ...], key: Key[Array, ""] | None = None) -> Images:
    """Transforms pictures: warp, then colours, then band filter, noise and cutout.

    Args:
        images: [N, H, W, C] around [-1, 1]; the colour transforms want three channels.
        transforms: from `draw`, or made by hand.
        kinds: which steps are done at all. A step that is done with neutral values changes nothing, but for the warp,
            which then still low-pass filters a little.
        key: randomness of the noise transform.

    Returns:
        Pictures of the same shape, float32.
    """
    x = images.astype(jnp.float32)
    if set(kinds) & set(GEOMETRY):
        x = warp(x, geometry(transforms, x.shape[1], x.shape[2]))
    if set(kinds) & set(COLOUR):
        matrix = colours(transforms)
        x = _exactly("nhwc,ndc->nhwd", x, matrix[:, :, :3]) + matrix[:, None, None, :, 3]
    if "imgfilter" in kinds:
        x = filter_bands(x, transforms.imgfilter)
    if "noise" in kinds:
        x = x + transforms.noise[:, None, None, None] * jax.random.normal(key, x.shape)
    if "cutout" in kinds:
        x = x * ~_box(transforms, x.shape[1], x.shape[2])
    return x


def geometry(transforms: Transforms, height: int, width: int) -> Float[AnyArray, "n 3 3"]:
    """The map from output to input positions, in pixels from the centre, x right and y down.

    S(1 - 2 xflip, 1) R(pi/2 rotate90) T(-round xint) S(1/scale) R(pre) S(1/aniso, aniso) R(post) T(-xfrac)
    """
    t = transforms
    size = jnp.array([width, height], jnp.float32)
    whole, part = jnp.round(t.xint * size), t.xfrac * size
    steps = [
        _scaling(1 - 2 * t.xflip, jnp.ones_like(t.xflip)),
        _rotation(math.pi / 2 * t.rotate90),
        _shift(-whole[:, 0], -whole[:, 1]),
        _scaling(1 / t.scale, 1 / t.scale),
        _rotation(t.rotate_pre),
        _scaling(1 / t.aniso, t.aniso),
        _rotation(t.rotate_post),
        _shift(-part[:, 0], -part[:, 1]),
    ]
    return functools.reduce(_product, steps)


def colours(transforms: Transforms) -> Float[AnyArray, "n 3 4"]:
    """The affine map [L | o] of (R, G, B): brightness, contrast, flip of luma, hue, saturation, in this order."""
    t = transforms
    n = len(t.brightness)
    axis = np.full(3, 1 / math.sqrt(3), np.float32)
    grey = np.outer(axis, axis)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float32) / math.sqrt(3)
    cos, sin = jnp.cos(t.hue)[:, None, None], jnp.sin(t.hue)[:, None, None]
    linear = t.contrast[:, None, None] * jnp.eye(3)
    offset = _product(linear, jnp.broadcast_to(t.brightness[:, None, None], (n, 3, 1)))
    for step in (
        jnp.eye(3) - 2 * t.lumaflip[:, None, None] * grey,
        cos * jnp.eye(3) + sin * cross + (1 - cos) * grey,  # Rodrigues' formula
        grey + t.saturation[:, None, None] * (jnp.eye(3) - grey),
    ):
        linear, offset = _product(step, linear), _product(step, offset)
    return jnp.concatenate([linear, offset], axis=-1)


def warp(images: Images, mapping: Float[AnyArray, "n 3 3"]) -> Images:
    """Looks every output pixel up at its input position, with the border mirrored and against aliasing.

    The picture is mirrored beyond its border, doubled in size by symlet-6, sampled bilinearly at doubled resolution
    and brought back by symlet-6.

    Args:
        images: pictures.
        mapping: from `geometry`.
    """
    _, height, width, _ = images.shape
    fine = _exactly("ih,nhwc,jw->ncij", _enlarging(height), images, _enlarging(width))
    # Positions at doubled resolution, in original pixels from the centre; an even filter shifts by half of one.
    y = (jnp.arange(2 * height + 12) + 0.5 - (height + 6)) / 2 + 0.25
    x = (jnp.arange(2 * width + 12) + 0.5 - (width + 6)) / 2 + 0.25
    points = jnp.stack([*jnp.broadcast_arrays(x[None, :], y[:, None]), jnp.ones((len(y), len(x)))])
    found = _exactly("nab,bij->naij", mapping[:, :2], points) - 0.25
    # In pixels of the enlarged picture, whose first and last row and column are the zeros outside.
    extent = jnp.array([fine.shape[3], fine.shape[2]], jnp.float32)[:, None, None]
    sampled = _look_up(fine, jnp.clip(2 * found + extent / 2 - 0.5, 0, extent - 1))
    return _exactly("hi,ncij,wj->nhwc", _reducing(height), sampled, _reducing(width))


def _look_up(planes: Float[AnyArray, "n c h w"], places: Float[AnyArray, "n 2 i j"]) -> Float[AnyArray, "n c i j"]:
    """Interpolates channels bilinearly at places (x, y) within them.

    Channels come first, and pixels are looked up one by one: an array with three channels, or two neighbours, in its
    last axis takes a TPU 40 times its size.
    """
    n, channels, height, width = planes.shape
    corner = jnp.clip(jnp.floor(places), 0, jnp.array([width - 2, height - 2], jnp.float32)[:, None, None])
    x, y = ((places - corner)[:, k].reshape(n, 1, -1) for k in (0, 1))
    corner = corner.astype(jnp.int32)
    first = (corner[:, 1] * width + corner[:, 0]).reshape(n, 1, -1)
    flat = planes.reshape(n, channels, -1)

    def at(down: int, right: int) -> Float[Array, "n c p"]:
        return jnp.take_along_axis(flat, first + down * width + right, axis=2, mode="promise_in_bounds")

    upper, lower = (1 - x) * at(0, 0) + x * at(0, 1), (1 - x) * at(1, 0) + x * at(1, 1)
    return ((1 - y) * upper + y * lower).reshape(n, channels, *places.shape[2:])


def filter_bands(images: Images, gains: Float[AnyArray, "n 4"]) -> Images:
    """Multiplies four frequency bands by gains, in both directions, with the border mirrored.

    A change of one band is normalised by the power that spectrum of a picture is expected to hold, 10:1:1:1.
    """
    power = jnp.array([10.0, 1.0, 1.0, 1.0]) / 13
    each = jnp.where(jnp.eye(4, dtype=bool), gains[:, :, None], 1.0)  # [n, band changed, band]
    each = each * jax.lax.rsqrt(jnp.sum(power * jnp.square(each), axis=-1, keepdims=True))
    gains = jnp.prod(each, axis=1)
    _, height, width, _ = images.shape
    rows, columns = (_exactly("nb,bij->nij", gains, _banding(size)) for size in (height, width))
    return _exactly("nih,nhwc,njw->nijc", rows, images, columns)


def _box(transforms: Transforms, height: int, width: int) -> Bool[AnyArray, "n h w 1"]:
    """Whether a pixel is within the box to cut out."""
    x, y = (jnp.arange(width) + 0.5) / width, (jnp.arange(height) + 0.5) / height
    near = transforms.cutout_size[:, None] / 2
    column = jnp.abs(x - transforms.cutout_center[:, :1]) < near
    row = jnp.abs(y - transforms.cutout_center[:, 1:]) < near
    return row[:, :, None, None] & column[:, None, :, None]


def _mirrored(positions: np.ndarray, size: int) -> np.ndarray:
    """Pixels that positions beyond the border show: the border pixel is not repeated."""
    period = max(2 * size - 2, 1)
    folded = np.abs(positions) % period
    return np.minimum(folded, period - folded)


@functools.cache
def _enlarging(size: int) -> np.ndarray:
    """Mirrors size - 1 pixels beyond both ends, doubles the resolution, and adds a zero at both ends."""
    margin = size - 1
    length = size + 2 * margin
    matrix = np.zeros((2 * length + 2, size), np.float32)
    for i, source in enumerate(_mirrored(np.arange(length) - margin, size)):
        for tap, weight in enumerate(SYMLET6):
            if 0 <= (j := 2 * i + tap - 5) < 2 * length:
                matrix[j + 1, source] += 2 * weight
    return matrix


@functools.cache
def _reducing(size: int) -> np.ndarray:
    """Halves the resolution of 2 size + 12 samples, of which 6 at both ends lie outside."""
    matrix = np.zeros((size, 2 * size + 12), np.float32)
    for i in range(size):
        matrix[i, 2 * i + 1 : 2 * i + 13] = SYMLET6
    return matrix


@functools.cache
def filter_bank() -> np.ndarray:
    """Four filters of 43 taps that cut the frequencies at pi/8, pi/4 and pi/2, and that sum to a unit impulse.

    A cascade of half-band filters, the autocorrelation of symlet-2: L(z)L(z^2)L(z^4), L(z)L(z^2)H(z^4), L(z)H(z^2),
    H(z).
    """
    low = np.convolve(SYMLET2, SYMLET2[::-1])
    sign = (-1.0) ** np.arange(len(SYMLET2))
    high = np.convolve(SYMLET2 * sign, (SYMLET2 * sign)[::-1])

    def spread(filter: np.ndarray, step: int) -> np.ndarray:
        out = np.zeros(step * (len(filter) - 1) + 1)
        out[::step] = filter
        return out

    bands, passed = [], np.ones(1)
    for step in (1, 2, 4):
        bands.append(np.convolve(passed, spread(high, step)))
        passed = np.convolve(passed, spread(low, step))
    bands = [passed, *bands[::-1]]
    return np.stack([np.pad(band, (len(passed) - len(band)) // 2) for band in bands]).astype(np.float32)


@functools.cache
def _banding(size: int) -> np.ndarray:
    """The filter bank as matrices [4, size, size], with the border mirrored."""
    bank = filter_bank()
    matrices = np.zeros((4, size, size), np.float32)
    taps = np.arange(bank.shape[1]) - bank.shape[1] // 2
    for i in range(size):
        np.add.at(matrices, (slice(None), i, _mirrored(i + taps, size)), bank)
    return matrices


def _matrix(rows: list[list[PerPicture | int]], like: PerPicture) -> Float[AnyArray, "n 3 3"]:
    full = [[jnp.broadcast_to(jnp.asarray(value, jnp.float32), like.shape) for value in row] for row in rows]
    return jnp.stack([jnp.stack(row, axis=-1) for row in full], axis=-2)


def _scaling(x: PerPicture, y: PerPicture) -> Float[AnyArray, "n 3 3"]:
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]], x)


def _shift(x: PerPicture, y: PerPicture) -> Float[AnyArray, "n 3 3"]:
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]], x)


def _rotation(angle: PerPicture) -> Float[AnyArray, "n 3 3"]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], angle)


def _product(a: Float[AnyArray, "n i j"], b: Float[AnyArray, "n j k"]) -> Float[AnyArray, "n i k"]:
    return _exactly("nij,njk->nik", a, b)


# Accelerators multiply float32 in bfloat16 unless asked not to, which would move pixels by more than a grey level.
_exactly = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def next_probability(
    probability: Float[AnyArray, ""], signs: Float[AnyArray, ""], pictures: int, target: float, kimg: float
) -> Float[AnyArray, ""]:
    """One step of the control of p: up where D is too sure of authentic pictures, down where it is not.

        p <- max(0, p + sign(r - target) pictures / (1000 kimg))

    Args:
        probability: p.
        signs: r, the mean sign of D's logits on authentic pictures since the last step.
        pictures: shown since then.
        target: of r.
        kimg: thousands of pictures in which p may go from 0 to 1.
    """
    return jnp.maximum(0.0, probability + jnp.sign(signs - target) * pictures / (1000.0 * kimg))
