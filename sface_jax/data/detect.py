"""Finds the face in a picture, and its landmarks: an optional dependency behind one small interface.

The detector is MTCNN (Zhang et al., IEEE Signal Processing Letters 23(10), 2016), as in the paper, from the package
`mtcnn`: its weights come with it, so nothing is fetched, and it runs on tensorflow, which TFDS needs anyway.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from sface_jax.core import specs
from sface_jax.core.errors import UserError
from sface_jax.data.align import Pixels

_WEIGHTS = ("pnet.lz4", "rnet.lz4", "onet.lz4")

SMALLEST = 20
"""Side in pixels of the smallest face that the package looks for."""


@runtime_checkable
class Detector(Protocol):
    """Gives the landmarks of a picture's face; picklable, as worker processes get copies."""

    def __call__(self, image: Pixels) -> Float32[np.ndarray, "5 2"] | None:
        """The landmarks, as `data/align.py` has them; None where no face is found: a failure to acquire."""


def open_detector(spec: str) -> Detector:
    """Makes the detector that a spec names: "mtcnn", or "mtcnn(threshold=0.9, longest=512)".

    Raises:
        UserError: the spec is not understood, or the detector's package is not installed.
    """
    return specs.make(spec, {"mtcnn": Mtcnn}, "align")


def choose(boxes: Float[np.ndarray, "f 4"], height: int, width: int) -> int:
    """Picks one face of a picture: the largest, unless another lies nearer to the centre.

    It is the face with the greatest area - 2 d^2, d the distance of its centre from the picture's: the rule by which
    the scripts of FaceNet and InsightFace align.

    Args:
        boxes: left, top, right and bottom of one face or more, in pixels.
        height: of the picture.
        width: of the picture.
    """
    left, top, right, bottom = boxes.T
    x, y = (left + right - width) / 2, (top + bottom - height) / 2
    return int(np.argmax((right - left) * (bottom - top) - 2 * (x**2 + y**2)))


class Mtcnn:
    """MTCNN on one core: a picture's landmarks do not depend on the number of workers."""

    def __init__(self, *, threshold: float = 0.9, longest: int = 512):
        """Checks the options and that the package is there; the networks are loaded when they are first used.

        Args:
            threshold: the least confidence of a face, between 0 and 1.
            longest: a picture is shrunk to this many pixels on its longer side, if it has more. The landmarks are
                found on 48 x 48 pixels of a face, so that faces above a tenth of the picture lose nothing.

        Raises:
            UserError: an option is out of range, or the package is not installed.
        """
        if not 0 < threshold < 1:
            raise UserError(f"align: mtcnn's threshold is {threshold}: set it between 0 and 1")
        if longest < 2 * SMALLEST:
            raise UserError(f"align: mtcnn's longest is {longest}: set it to {2 * SMALLEST} or above")
        for package in ("mtcnn", "tensorflow"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"align=mtcnn needs the package {package}: pip install '.[align]', or give landmarks in a file"
                )
        self.threshold, self.longest = threshold, longest
        self._network: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def __call__(self, image: Pixels) -> Float32[np.ndarray, "5 2"] | None:
        """The landmarks of the face that `choose` picks, or None.

        Where none is found, it looks once more with a border about the picture: a face that fills it to the edges is
        often missed without.
        """
        self._network = self._network or _load()
        points = self._find(image)
        if points is None:
            border = max(image.shape) // 2
            points = self._find(_framed(image, border))
            points = None if points is None else points - border
        return points

    def _find(self, image: np.ndarray) -> np.ndarray | None:
        height, width, _ = image.shape
        shrink = max(1.0, max(height, width) / self.longest)
        size = max(1, round(width / shrink)), max(1, round(height / shrink))
        if min(size) < SMALLEST:
            return None
        if shrink > 1:
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        # The package's own least face stays as it is: with another, its pyramid ends in pictures that are too small for
        # its first network, and that it takes for "no face".
        options = {"box_format": "xyxy", "output_type": "numpy", "threshold_onet": self.threshold}
        with _silence():  # tensorflow complains of every picture without a face
            found = self._network.detect_faces(image, **options).astype(np.float32)
        if not len(found):
            return None
        # A row is: picture, box, confidence, 5 x, 5 y.
        row = found[choose(found[:, 1:5], size[1], size[0])]
        points = row[6:].reshape(2, 5).T
        return (points + 0.5) * np.array([width, height], np.float32) / np.array(size, np.float32) - 0.5


def _framed(image: np.ndarray, border: int) -> np.ndarray:
    """The picture with a border of its mean colour."""
    height, width, _ = image.shape
    framed = np.empty((height + 2 * border, width + 2 * border, 3), np.uint8)
    framed[:] = image.mean(axis=(0, 1)).astype(np.uint8)
    framed[border : border + height, border : border + width] = image
    return framed


def _load() -> Any:
    """Loads the networks, quietly, on one core and no accelerator.

    Raises:
        UserError: the current folder holds files that the package would load in place of its own.
    """
    if foreign := [name for name in _WEIGHTS if os.path.exists(name)]:  # it would unpickle them
        raise UserError(f"mtcnn would load {foreign[0]} of this folder as its weights: run from another folder")
    with _silence():
        from mtcnn import mtcnn

        with contextlib.suppress(RuntimeError):  # tensorflow is at work in this process, as someone else set it up
            mtcnn.tf.config.set_visible_devices([], "GPU")
            mtcnn.tf.config.threading.set_intra_op_parallelism_threads(1)
            mtcnn.tf.config.threading.set_inter_op_parallelism_threads(1)
        network = mtcnn.MTCNN()
        network.detect_faces(np.zeros((64, 64, 3), np.uint8))
    return network


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hides what tensorflow's C++ writes to stderr, whatever it is told."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
