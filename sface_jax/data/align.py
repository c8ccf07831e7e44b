"""Faces brought to one pose: five landmarks, moved onto a template by rotation, scaling and shift.

The template is the one that ArcFace (Deng et al., CVPR 2019) and most recognisers after it were trained on. Landmarks
are, in this order and as seen in the picture: left eye, right eye, tip of the nose, left and right corner of the mouth.
Coordinates are x, y in pixels; the centre of the first pixel is (0, 0), as in `cv2.warpAffine`, with which the training
pictures of those networks were cut.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, UInt8

from sface_jax.core.errors import Damaged

Pixels = UInt8[np.ndarray, "h w 3"]
Landmarks = Float[np.ndarray, "5 2"]
Matrix = Float[np.ndarray, "2 3"]

LEAST_FIT = 0.25
"""The least part of the template's variance that landmarks must explain.

The landmarks of a full profile explain 0.5; with left and right confused, those of any face explain less than 0.1.
"""

_SIDE = 112  # pixels of the pictures that the template was drawn for
_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))


def template(size: int) -> Landmarks:
    """Where the landmarks of an aligned picture lie, float32.

    Args:
        size: side of the picture in pixels. The picture shows the same part of the face at any size: what is x at 112
            is (x + 0.5) * size / 112 - 0.5 here.
    """
    return ((np.array(_TEMPLATE) + 0.5) * size / _SIDE - 0.5).astype(np.float32)


def similarity(source: Landmarks, target: Landmarks) -> Matrix:
    """The rotation, scaling and shift that takes points nearest to others; it never mirrors.

    Minimises sum |a p + b - q|^2 over complex numbers a and b, with the points p and q written as x + iy: in the plane
    that is the least-squares estimate of Umeyama (IEEE TPAMI 13(4), 1991) without reflection.

    Args:
        source: points p.
        target: points q.

    Returns:
        [[Re a, -Im a, Re b], [Im a, Re a, Im b]], float64: what takes (x, y, 1) of the source to the target.

    Raises:
        Damaged: the source is not finite, coincides in one point, or has so little of the target's shape (see
            `LEAST_FIT`) that it shows no face.
    """
    fit = 0.0
    if np.isfinite(source).all():
        p, q = (points.astype(np.float64) @ [1, 1j] for points in (source, target))
        from_mean, to_mean = p - p.mean(), q - q.mean()
        overlap, spread = np.vdot(from_mean, to_mean), np.vdot(from_mean, from_mean).real
        fit = abs(overlap) ** 2 / (spread * np.vdot(to_mean, to_mean).real) if spread > 0 else 0.0
    if fit < LEAST_FIT:
        raise Damaged(
            f"landmarks {np.round(source, 1).tolist()} show no face: they should be left eye, right eye, nose, left "
            "and right corner of the mouth, as seen in the picture"
        )
    a = overlap / spread
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def scale(matrix: Matrix) -> float:
    """How many pixels of the target a pixel of the source becomes: above 1, the picture is enlarged."""
    return float(np.hypot(*matrix[:, 0]))


def align(image: Pixels, landmarks: Landmarks, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Cuts the face out so that its landmarks come as near to the template as a similarity transform takes them.

    Raises:
        Damaged: see `similarity`.
    """
    return warp(image, similarity(landmarks, template(size)), size)


def warp(image: Pixels, matrix: Matrix, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Moves a picture by an affine transform into a square; what lies outside of the picture is black.

    Each pixel is taken from the four about its place in the source, bilinearly, as by `cv2.warpAffine` with
    INTER_LINEAR and a constant border. Nothing is smoothed before it shrinks: nor was it in the pictures that published
    recognisers were trained on.

    Args:
        image: the picture.
        matrix: takes its coordinates to those of the square.
        size: side of the square.
    """
    height, width, _ = image.shape
    x, y = np.tensordot(np.linalg.inv(matrix[:, :2]), _coordinates(size) - matrix[:, 2, None, None], axes=1)
    # Beyond one pixel outside all is black alike; bounded, coordinates fit an integer.
    x, y = x.clip(-2, width + 1), y.clip(-2, height + 1)
    left, top = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    x, y = (x - left).astype(np.float32), (y - top).astype(np.float32)
    total = np.zeros((size, size, 3), np.float32)
    for row, share_y in ((top, 1 - y), (top + 1, y)):
        for column, share_x in ((left, 1 - x), (left + 1, x)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = share_x * share_y * inside
            total += share[..., None] * image[row.clip(0, height - 1), column.clip(0, width - 1)]
    return np.rint(total).astype(np.uint8)


@functools.cache
def _coordinates(size: int) -> np.ndarray:
    """x and y of every pixel of a square: [2, size, size]."""
    y, x = np.mgrid[:size, :size]
    return np.stack([x, y]).astype(np.float64)
