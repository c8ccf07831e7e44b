"""RandAugment: a few random changes to every training picture, made with Pillow where pictures are decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from sface_jax.core.errors import UserError

LARGEST = 30
"""The magnitude at which every operation is at its strongest."""


class RandAugment(NamedTuple):
    """RandAugment (Cubuk et al., arXiv 1909.13719): operations drawn one after another, all at one magnitude.

    Operations and their ranges are those of torchvision, with which recognisers have been trained on synthetic faces
    (4 layers, magnitude 16): what moves out of the picture is lost, what comes in is black, and pixels are not
    interpolated. Picklable, for worker processes.

    Attributes:
        layers: operations on each picture; the same may be drawn twice.
        magnitude: 0..30.
    """

    layers: int
    magnitude: int

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Changes a picture; all draws come from `rng`."""
        changed, strength = Image.fromarray(picture), self.magnitude / LARGEST
        chosen, signs = rng.integers(len(OPERATIONS), size=self.layers), rng.choice((-1, 1), size=self.layers)
        for number, sign in zip(chosen, signs, strict=True):
            changed = OPERATIONS[number](changed, strength, int(sign))
        return np.asarray(changed)


def randaugment(layers: int = 4, magnitude: int = 16) -> RandAugment:
    """Makes a `RandAugment`.

    Raises:
        UserError: a number is out of range.
    """
    if layers < 1 or not 0 <= magnitude <= LARGEST:
        raise UserError(
            f"randaugment(layers={layers}, magnitude={magnitude}): layers are 1 or more, magnitude is 0..{LARGEST}"
        )
    return RandAugment(layers, magnitude)


def _identity(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return picture


def _shear_x(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return _moved(picture, (1, sign * 0.3 * strength, 0, 0, 1, 0))


def _shear_y(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return _moved(picture, (1, 0, 0, sign * 0.3 * strength, 1, 0))


def _translate_x(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return _moved(picture, (1, 0, sign * int(150 / 331 * picture.width * strength), 0, 1, 0))


def _translate_y(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return _moved(picture, (1, 0, 0, 0, 1, sign * int(150 / 331 * picture.height * strength)))


def _rotate(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return picture.rotate(sign * 30 * strength)


def _brightness(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1 + sign * 0.9 * strength)


def _colour(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Color(picture).enhance(1 + sign * 0.9 * strength)


def _contrast(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(1 + sign * 0.9 * strength)


def _sharpness(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageEnhance.Sharpness(picture).enhance(1 + sign * 0.9 * strength)


def _posterize(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.posterize(picture, 8 - round(4 * strength))


def _solarize(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.solarize(picture, round(255 * (1 - strength)))


def _autocontrast(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.autocontrast(picture)


def _equalize(picture: Image.Image, strength: float, sign: int) -> Image.Image:
    return ImageOps.equalize(picture)


def _moved(picture: Image.Image, matrix: tuple[float | int, ...]) -> Image.Image:
    """Takes pixel (x, y) from (a x + b y + c, d x + e y + f)."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix)


OPERATIONS: tuple[Callable[[Image.Image, float, int], Image.Image], ...] = (
    _identity,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
