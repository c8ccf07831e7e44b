"""Drawing with soft shapes: layers of bent, tapered eggs, composited and lit on a pixel grid.

A `Layer` is one shape with a colour. Its edge is antialiased analytically (coverage is a smooth step of the signed
distance), so a modest supersampling is enough. All layers go through one formula, evaluated for the whole stack at
once: adding a layer adds a row to a table, not a kernel to compile.

Coordinates: x to the right, y downwards, the picture is the square [-1, 1] x [-1, 1].
"""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Plane = Float[Array, "h w"]
SOLID = 10.0


@dataclass(frozen=True)
class Layer:
    """A filled shape: an egg that may be squared, tapered, bent along a parabola, or hollow.

    Attributes:
        x, y: centre.
        width, top, bottom: radii sideways, upwards and downwards.
        angle: clockwise rotation in radians.
        square: 0 for an ellipse, 1 for a rounded rectangle (the superellipse of exponent 4).
        taper: relative narrowing per unit of y below the centre.
        bend: the centre line is y = bend x^2 (positive: the ends hang down).
        soft: width of the edge, in picture units.
        ring: thickness of the wall of a hollow shape; `SOLID` for a filled one.
        opacity: coverage inside, 0..1.
        curled: 1 when drawn on the rippled coordinates of curly hair, else 0.
        paint: red, green, blue (0..1), relief (how much the light of the head shapes it), strands (hairiness).
        clip: index of the layer, earlier in the stack, outside which this one is invisible.
    """

    x: Scalar
    y: Scalar
    width: Scalar
    top: Scalar
    bottom: Scalar
    angle: Scalar
    square: Scalar
    taper: Scalar
    bend: Scalar
    soft: Scalar
    ring: Scalar
    opacity: Scalar
    curled: Scalar
    paint: Float[Array, "5"]
    clip: int | None

    def clipped(self, parent: int) -> "Layer":
        """The same layer, invisible outside layer number `parent` of its stack."""
        return replace(self, clip=parent)


SHAPE = tuple(field.name for field in fields(Layer) if field.name not in ("paint", "clip"))


def layer(
    x, y, width, top, colour, *, bottom=None, angle=0.0, square=0.0, taper=0.0, bend=0.0, soft=0.012, ring=SOLID,
    opacity=1.0, relief=1.0, strands=0.0, curled=0.0, clip=None,
) -> Layer:  # fmt: skip
    """A `Layer` with the usual defaults: a crisp, filled, upright ellipse, lit like the head."""
    bottom = top if bottom is None else bottom
    shape = (x, y, width, top, bottom, angle, square, taper, bend, soft, ring, opacity, curled)
    paint = jnp.concatenate([jnp.asarray(colour, jnp.float32), jnp.asarray([relief, strands], jnp.float32)])
    return Layer(*(jnp.float32(number) for number in shape), paint=paint, clip=clip)


def ripple(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """A wave of period 1 and amplitude 1: a sine made of parabolas, which any compiler vectorises."""
    t = t - jnp.round(t)
    return t * (8.0 - 16.0 * jnp.abs(t))


@partial(jax.tree_util.register_dataclass, data_fields=["shape", "paint"], meta_fields=["clips"])
@dataclass(frozen=True)
class Stack:
    """Layers back to front, column by column: arrays [layers] to draw one picture, [n, layers] for a batch.

    A stack is meant to cross from one compiled program to the next: where the compiler sees the columns being put
    together it fuses that into the drawing, whose inner loops then run three times as long (measured on CPU).
    """

    shape: dict[str, Any]
    paint: tuple[Any, ...]
    clips: tuple[int | None, ...]


def pile(layers: list[Layer]) -> Stack:
    """Puts the layers of one picture into columns."""
    shape = {name: jnp.stack([getattr(one, name) for one in layers]) for name in SHAPE}
    paint = jnp.stack([one.paint for one in layers], 1)
    return Stack(shape, tuple(paint), tuple(one.clip for one in layers))


def coverage(stack: Stack, x: Plane, y: Plane, ripple_x: Plane, ripple_y: Plane) -> Float[Array, "layers h w"]:
    """How much each layer covers each sample: 0..1, before clipping. Arguments as for `composite`."""
    s = {name: column[:, None, None] for name, column in stack.shape.items()}
    cos, sin = jnp.cos(s["angle"]), jnp.sin(s["angle"])
    dx, dy = x + s["curled"] * ripple_x - s["x"], y + s["curled"] * ripple_y - s["y"]
    u = dx * cos + dy * sin
    v = dy * cos - dx * sin - s["bend"] * u * u
    inverse_width, inverse_height = 1.0 / s["width"], jnp.where(v > 0, 1.0 / s["bottom"], 1.0 / s["top"])
    u = u * (inverse_width * (1.0 + s["taper"] * jnp.maximum(v, 0.0)))
    v = v * inverse_height
    uu, vv = u * u, v * v
    # r^2 = (u^2 + v^2) + square (u^4 + v^4 - u^2 - v^2) is 1 on the outline.
    radius2 = uu + vv + s["square"] * (uu * uu + vv * vv - uu - vv)
    slope2 = uu * (inverse_width * inverse_width) + vv * (inverse_height * inverse_height)
    # First-order distance to the outline: (r^2 - 1) / |grad r^2|.
    distance = 0.5 * (radius2 - 1.0) * jax.lax.rsqrt(slope2 + 1e-6)
    distance = jnp.maximum(distance, -s["ring"] - distance)
    edge = jnp.clip(0.5 - distance / s["soft"], 0.0, 1.0)
    return s["opacity"] * edge * edge * (3.0 - 2.0 * edge)


def composite(canvas: list[Plane], stack: Stack, x: Plane, y: Plane, ripple_x: Plane, ripple_y: Plane) -> list[Plane]:
    """Paints layers over a canvas.

    Args:
        canvas: the five `paint` channels of the background.
        stack: what to paint, back to front.
        x, y: sample coordinates.
        ripple_x, ripple_y: what to add to them for the layers that are `curled`.

    Returns:
        The five `paint` channels after painting.
    """
    alphas = coverage(stack, x, y, ripple_x, ripple_y)
    for i, parent in enumerate(stack.clips):
        alpha = alphas[i] if parent is None else alphas[i] * alphas[parent]
        canvas = [channel + alpha * (column[i] - channel) for channel, column in zip(canvas, stack.paint, strict=True)]
    return canvas
