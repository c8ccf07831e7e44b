"""The anatomy of a procedural face: from the parameters of a person and of a picture to a stack of layers.

Everything is in the frame of the head (before roll, shift and scale): see `face_drawing` for the coordinates. A point
of the face lies on a curved surface, so that turning the head moves the nose more than the eyes, and the eyes more
than the hair behind them.
"""

from collections.abc import Iterator
from itertools import pairwise

import jax.numpy as jnp
from jaxtyping import Array, Float

from sface_jax.data.face_drawing import Layer, layer

Scalar = Float[Array, ""]
Colour = Float[Array, "3"]
Parameters = dict[str, Scalar]

SIDES = (-1, 1)
SKIN_TONES = (
    (0.97, 0.84, 0.77),
    (0.92, 0.73, 0.61),
    (0.80, 0.58, 0.43),
    (0.60, 0.40, 0.28),
    (0.44, 0.29, 0.20),
    (0.33, 0.22, 0.16),
)
HAIR_TONES = (
    (0.07, 0.06, 0.06),
    (0.17, 0.10, 0.07),
    (0.33, 0.19, 0.11),
    (0.50, 0.23, 0.10),
    (0.66, 0.44, 0.22),
    (0.86, 0.70, 0.42),
    (0.62, 0.61, 0.60),
    (0.88, 0.87, 0.85),
)
IRIS_TONES = (
    (0.16, 0.09, 0.05),
    (0.36, 0.20, 0.09),
    (0.45, 0.38, 0.16),
    (0.28, 0.47, 0.27),
    (0.35, 0.56, 0.68),
    (0.20, 0.38, 0.66),
    (0.48, 0.52, 0.55),
)
# The plane inside the head that stays where it is when the head turns, as after an alignment on eyes and mouth.
PIVOT = 0.30


def palette(tone: Scalar, colours: tuple[tuple[float, float, float], ...]) -> Colour:
    """The colour at `tone` (0..1) along a list of colours, interpolated linearly."""
    stops = jnp.asarray(colours, jnp.float32)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(tone * (len(colours) - 1) - jnp.arange(len(colours))))
    return jnp.sum(weights[:, None] * stops, 0)


def hue(angle: Scalar) -> Colour:
    """The saturated colour at `angle` (0..1, both ends red) of the colour wheel."""
    wheel = (angle + jnp.asarray([0.0, 2 / 3, 1 / 3])) % 1.0
    return jnp.clip(jnp.abs(wheel * 6.0 - 3.0) - 1.0, 0.0, 1.0)


def _within(value: Scalar, low: float, high: float) -> Scalar:
    """1 where low <= value < high, else 0: how a uniform parameter chooses whether something is there."""
    return jnp.float32((value >= low) & (value < high))


class _Face:
    """What several parts need to know: how the head is turned, where its landmarks are, what colours it has."""

    def __init__(self, p: Parameters, q: Parameters):
        self.p, self.q = p, q
        # The power gathers the heads around the frontal view.
        yaw, pitch = 0.6 * q["yaw"] * jnp.sqrt(jnp.abs(q["yaw"])), 0.22 * q["pitch"]
        self.turn, self.facing, self.nod = jnp.sin(yaw), jnp.cos(yaw), jnp.sin(pitch)

        self.skin = palette(p["skin"], SKIN_TONES) + p["undertone"] * jnp.asarray([0.015, -0.01, -0.035])
        self.shade = self.skin * jnp.asarray([0.62, 0.52, 0.50])
        self.dark = self.skin * jnp.asarray([0.38, 0.28, 0.27])
        self.shine = 0.4 + 0.6 * self.skin
        dyed = 0.15 + 0.65 * hue(p["hair_hue"])
        self.hair = jnp.where(p["hair_dyed"] < 0.12, dyed, palette(p["hair_tone"], HAIR_TONES))

        bald = _within(p["hair_style"], 0.0, 0.1)
        self.haired = 1.0 - bald
        self.bun = _within(p["hair_style"], 0.86, 2.0)
        self.long = _within(p["hair_length"], 0.45, 2.0) * self.haired * (1.0 - self.bun)
        self.length = jnp.where(self.long > 0, 0.25 + 0.8 * p["hair_length"], -0.10 + 0.5 * p["hair_length"])
        self.hairline = jnp.where(bald > 0, p["skull"] + 0.01, p["hairline"])
        self.bearded = _within(p["beard"], 0.0, 0.17)
        self.eye_y = p["eye_height"]
        self.tip_y = self.eye_y + p["nose_length"]
        self.mouth_y = self.tip_y + p["mouth_height"] * (p["chin"] - self.tip_y)

    def at(self, x, y, z=0.0):
        """Where the point (x, y) of the face, `z` in front of its surface, is seen, and its sideways foreshortening."""
        depth = 0.46 - 0.55 * x * x - 0.25 * y * y + z - PIVOT
        squeeze = jnp.maximum(self.facing - 1.1 * x * self.turn, 0.3)
        return x * self.facing + depth * self.turn, y + depth * self.nod, squeeze

    def inside(self, z):
        """How far turning the head moves what is at depth `z` (0 between the ears, positive towards the face)."""
        return (z - PIVOT) * self.turn, (z - PIVOT) * self.nod


def layers(p: Parameters, q: Parameters) -> list[Layer]:
    """The stack of shapes of one picture, back to front.

    Args:
        p: `faces.identity_parameters` of the person.
        q: `faces.picture_parameters` of the picture.
    """
    face = _Face(p, q)
    stack: list[Layer] = []
    for part in (_hair_behind, _neck, _ears, _head, _eyes, _brows, _nose, _mouth, _hair_in_front, _occluders):
        # A part clips with positions in its own list of layers.
        first = len(stack)
        stack += [one if one.clip is None else one.clipped(first + one.clip) for one in part(face, p, q)]
    return stack


def _hair_behind(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    x, y = face.inside(-0.15)
    top = p["skull"] - p["hair_volume"]
    style = {"strands": 1.0, "curled": 1.0}
    yield layer(x, y + top - 0.02, 0.21, 0.2, face.hair, opacity=face.bun, **style)
    outline = {"bottom": 0.18 + face.length, "square": 0.15 + 0.5 * face.long, "opacity": face.haired}
    yield layer(x, y - 0.18, p["face_width"] + p["hair_sides"], -top, face.hair * 0.9, **outline, **style)
    sheen = {"bend": 0.5, "soft": 0.2, "opacity": 0.3, "clip": 1}
    x, y = x + 0.2 * q["light_x"], y + p["skull"] + 0.1
    yield layer(x, y, 0.7 * p["face_width"], 0.09, 0.35 + 0.65 * face.hair, **sheen, **style)


def _neck(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    x, _ = face.inside(0.0)
    width, cloth = p["face_width"], jnp.stack([q["cloth_red"], q["cloth_green"], q["cloth_blue"]])
    yield layer(0.6 * x, 0.75, 0.62 * width, 0.5, face.skin * 0.8, bottom=0.6, square=1.0, relief=0.6)
    yield layer(0.6 * x, p["chin"] + 0.05, 0.75 * width, 0.12, face.dark, soft=0.25, opacity=0.55, clip=0)
    yield layer(0.4 * x, 1.22, 0.95, 0.34, cloth, square=0.45, relief=0.4)
    yield layer(0.5 * x, 0.84, 0.55 * width, 0.1, face.skin * 0.78, bottom=0.06 + 0.3 * q["collar"], relief=0.5)


def _ears(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    x, y = face.inside(0.0)
    y = y + face.eye_y + 0.13
    for side in SIDES:
        centre = x + side * (p["face_width"] + 0.015) * face.facing
        shown = {"angle": side * 0.15, "opacity": 1.0 - face.long}
        yield layer(centre, y, 0.075, p["ear_size"], face.skin * 0.92, square=0.2, **shown)
        yield layer(centre + side * 0.008, y, 0.035, p["ear_size"] * 0.6, face.shade, soft=0.07, **shown)


def _head(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    x, y = face.inside(0.16)
    width, chin, middle = p["face_width"], p["chin"], 0.06
    jaw = {"square": 0.1 + p["jaw_square"] * (0.2 + 0.3 * face.haired), "taper": p["jaw_taper"]}
    yield layer(x, y + middle, width, middle - face.hairline, face.skin, bottom=chin - middle, **jaw)
    for side in SIDES:
        x, y, squeeze = face.at(side * 0.3, 0.22)
        flush = face.skin * jnp.asarray([1.0, 0.66, 0.62])
        yield layer(x, y, 0.2 * squeeze, 0.15, flush, soft=0.3, opacity=p["blush"], clip=0)
    x, y, _ = face.at(0.0, 0.60)
    beard = (0.8 * x, y + 0.02, 0.98 * width, 0.34, face.hair * 0.85)
    style = {"square": 0.5, "taper": 0.25, "soft": 0.14, "strands": 1.0}
    yield layer(*beard, bottom=chin - 0.56, opacity=0.3 * _within(p["beard"], 0.17, 0.27), clip=0, **style)
    yield layer(*beard, bottom=chin - 0.56 + p["beard_length"], opacity=0.92 * face.bearded, **style)
    side = jnp.where(p["mole_x"] > 0, 1.0, -1.0)
    x, y, _ = face.at(0.13 * side + p["mole_x"], p["mole_y"])
    yield layer(x, y, 0.022, 0.022, face.dark, opacity=0.9 * _within(p["mole"], 0.0, 0.25))


def _eyes(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    opening, iris = p["eye_open"] * q["eye_opening"], palette(p["iris_tone"], IRIS_TONES)
    radius = p["iris_size"]
    for number, side in enumerate(SIDES):
        x, y, squeeze = face.at(side * p["eye_spacing"], face.eye_y)
        width, angle, white = p["eye_width"] * squeeze, -side * p["eye_tilt"], 7 * number + 1
        curve, lid = opening / (width * width), p["lid"] + 0.004
        yield layer(x, y - 0.02, 1.45 * width, 0.12, face.shade, bottom=0.1, soft=0.22, opacity=0.75)
        yield layer(x, y, width, opening, (0.93, 0.92, 0.90), bottom=0.8 * opening, angle=angle, relief=0.7)
        gaze_x, gaze_y = x + 0.28 * width * q["gaze_x"], y - 0.004 + 0.012 * q["gaze_y"]
        yield layer(gaze_x, gaze_y, radius * squeeze, radius, iris, relief=0.5, clip=white)
        yield layer(gaze_x, gaze_y, 0.48 * radius * squeeze, 0.48 * radius, (0.03, 0.03, 0.03), relief=0.5, clip=white)
        yield layer(gaze_x - 0.016, gaze_y - 0.018, 0.013, 0.013, (1.0, 1.0, 1.0), relief=0.0, clip=white)
        upper, lower = {"angle": angle, "bend": 0.8 * curve}, {"angle": angle, "bend": -0.6 * curve}
        yield layer(x, y - 0.95 * opening, 1.12 * width, lid, face.dark * 0.6, soft=0.016, **upper)
        yield layer(x, y + 0.8 * opening, 0.9 * width, 0.008, face.shade, soft=0.03, opacity=0.8, **lower)


def _brows(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    colour = 0.75 * p["brow_tone"] * face.hair + 0.45 * (1.0 - p["brow_tone"]) * face.skin
    style = {"bend": p["brow_arch"], "square": 0.3, "soft": 0.025, "strands": 0.5}
    for side in SIDES:
        x, y, squeeze = face.at(side * (p["eye_spacing"] + 0.01), face.eye_y - p["brow_gap"] - q["brow_raise"], 0.03)
        angle = side * (q["frown"] - p["brow_tilt"])
        yield layer(x, y, p["brow_length"] * squeeze, p["brow_thickness"], colour, angle=angle, **style)


def _nose(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    width, light = p["nose_width"], 0.01 * q["light_x"]
    top_x, top_y, _ = face.at(0.0, face.eye_y + 0.02, 0.04)
    tip_x, tip_y, _ = face.at(0.0, face.tip_y, 0.16)
    ridge = {"angle": jnp.arctan2(top_x - tip_x, tip_y - top_y)}
    x, y, half = (top_x + tip_x) / 2, (top_y + tip_y) / 2, p["nose_length"] / 2
    for side in SIDES:
        # The flank away from the light, and the one away from the viewer, are the dark ones.
        depth = 0.25 + 0.45 * jnp.maximum(0.0, -side * q["light_x"]) + 0.5 * jnp.maximum(0.0, side * face.turn)
        flank = {"soft": 0.09, "opacity": depth * (0.4 + 0.6 * p["nose_bridge"])}
        yield layer(x + side * (0.03 + 0.45 * width), y, 0.045, 1.1 * half, face.shade, **flank, **ridge)
    yield layer(x + light, y, 0.02, half, face.shine, soft=0.06, opacity=0.55, **ridge)
    x, y, _ = face.at(0.0, face.tip_y + 0.01, 0.09)
    yield layer(x, y + 0.025, 1.25 * width, 0.03, face.shade, bottom=0.035, soft=0.06, opacity=0.75)
    yield layer(tip_x, tip_y - 0.015, 0.62 * width + 0.01, 0.055, face.skin, soft=0.07, opacity=0.9)
    yield layer(tip_x + light, tip_y - 0.03, 0.025, 0.022, face.shine, soft=0.05, opacity=0.6)
    for side in SIDES:
        yield layer(x + side * 0.98 * width, y, 0.03, 0.045, face.skin * 0.93, soft=0.04, opacity=0.8)
        nostril = {"angle": -0.3 * side, "soft": 0.02, "opacity": 0.9}
        yield layer(x + side * 0.52 * width, y + 0.026, 0.3 * width, 0.014, face.dark * 0.8, **nostril)


def _mouth(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    gap = 0.11 * jnp.maximum(0.0, q["mouth_open"] - 0.5)
    x, y, _ = face.at(0.0, face.mouth_y, 0.03)
    y = y + 0.3 * gap
    width = p["mouth_width"] * face.facing * (1.0 + 0.18 * q["smile"])
    upper, lower, bend = gap + p["upper_lip"], gap + p["lower_lip"], -1.1 * q["smile"] - 0.3
    pale, red = face.skin * jnp.asarray([0.92, 0.72, 0.72]), face.skin * jnp.asarray([0.90, 0.42, 0.44])
    lips = pale + 0.65 * p["lip_red"] * (red - pale)
    moustache = {
        "bend": 0.9,
        "strands": 1.0,
        "opacity": 0.95 * jnp.maximum(face.bearded, _within(p["beard"], 0.95, 2.0)),
    }
    yield layer(x, y + lower + 0.05, 0.75 * width, 0.03, face.shade, soft=0.06, opacity=0.5)
    yield layer(x, y - 0.11, 0.022, 0.05, face.shade, soft=0.05, opacity=0.3)
    yield layer(x, y - upper - 0.035, 1.1 * width, 0.03, face.hair * 0.85, soft=0.03, **moustache)
    yield layer(x, y, width, upper, lips, bottom=lower, bend=bend, soft=0.016)
    shine_y = y + gap + 0.5 * p["lower_lip"]
    yield layer(x, shine_y, 0.5 * width, 0.012, 0.4 + 0.6 * lips, bend=bend, soft=0.03, opacity=0.5)
    yield layer(x, y, 0.93 * width, gap + 0.006, (0.20, 0.05, 0.06), bend=bend, soft=0.014)
    teeth = {"opacity": _within(gap, 0.012, 1.0), "clip": 5}
    yield layer(x, y - 0.5 * gap, 0.75 * width, 0.55 * gap + 0.001, (0.95, 0.94, 0.90), bend=bend, **teeth)


def _hair_in_front(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    style = {"strands": 1.0, "curled": 1.0}
    x, y = face.inside(0.16)
    x, y = x + 0.1 * p["hair_part"], y + face.hairline - 0.05
    fringe = {
        "bottom": 0.05 + p["fringe_drop"] + 0.02 * q["hair_fall"],
        "angle": 0.3 * p["hair_part"],
        "square": p["hairline_square"],
        "bend": 0.25,
        "opacity": _within(p["fringe"], 0.0, 0.45) * face.haired,
    }
    yield layer(x, y, 0.86 * p["face_width"], 0.12, face.hair, **fringe, **style)
    x, _ = face.inside(0.22)
    thickness = 0.04 + (0.2 + 0.4 * face.long) * p["hair_sides"]
    end = jnp.where(face.long > 0, face.length - 0.1, 0.05 + 0.1 * p["hair_length"])
    shown = face.haired * jnp.maximum(face.long, _within(p["hair_sides"], 0.08, 1.0))
    lock = {"bottom": 0.2 + end, "square": 0.4 * face.long, "opacity": shown}
    for side in SIDES:
        centre = 0.7 * x + side * (0.96 * p["face_width"] + 0.06 * face.long) * face.facing
        yield layer(centre, -0.2, thickness, 0.24 + 0.06 * face.long, face.hair, angle=side * 0.12, **lock, **style)


def _occluders(face: _Face, p: Parameters, q: Parameters) -> Iterator[Layer]:
    colour = jnp.stack([q["occluder_red"], q["occluder_green"], q["occluder_blue"]])
    bounds = (0.0, 0.07, 0.11, 0.14, 0.17)
    glasses, hat, scarf, hand = (_within(q["occluder"], low, high) for low, high in pairwise(bounds))
    frame = {"relief": 0.4, "square": 0.6}
    for side in SIDES:
        x, y, squeeze = face.at(side * 1.02 * p["eye_spacing"], face.eye_y + 0.015, 0.06)
        yield layer(x, y, 0.165 * squeeze, 0.125, 0.3 * colour, ring=0.03, opacity=glasses, **frame)
        yield layer(x, y, 0.16 * squeeze, 0.12, 0.3 * colour, opacity=0.18 * glasses, **frame)
    x, y, _ = face.at(0.0, face.eye_y - 0.01, 0.1)
    yield layer(x, y, 0.07, 0.012, 0.3 * colour, opacity=glasses, **frame)
    back_x, back_y = face.inside(-0.15)
    brim_x, brim_y = face.inside(0.22)
    width = p["face_width"] + 0.05 + p["hair_sides"]
    yield layer(0.5 * back_x, back_y + face.hairline - 0.28, width, 0.3, colour, bottom=0.26, square=0.35, opacity=hat)
    yield layer(brim_x, brim_y + face.hairline - 0.03, width, 0.055, colour * 0.7, bend=0.25, square=0.5, opacity=hat)
    height = 0.36 + 0.1 * q["occluder_y"]
    yield layer(0.0, 0.95, 0.75, height, colour, bend=-0.12, square=0.5, relief=0.6, opacity=scarf)
    glove = jnp.where(q["occluder_x"] > 0, face.skin * 0.9, colour)
    x, y, angle = 0.55 * q["occluder_x"], 0.45 + 0.3 * q["occluder_y"], q["occluder_x"]
    yield layer(x, y, 0.17, 0.24, glove, angle=angle, square=0.3, relief=0.6, opacity=hand)
