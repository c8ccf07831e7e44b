"""Leaks made on purpose: pictures of members, edited as by somebody who wants them not to be known for copies."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sface_jax.core import pictures

EXACT, EDITED, OTHER = "exact", "edited", "other"
KINDS = (EXACT, EDITED, OTHER)
"""The same picture; re-encoded, cropped and re-lit; another picture of the person."""

QUALITY = 75
CROP = (0.90, 0.97)
GAIN, TINT, GAMMA, RAMP = 0.15, 0.05, 0.2, 0.15


def edited(images: UInt8[np.ndarray, "n s s 3"], seed: int = 0) -> UInt8[np.ndarray, "n s s 3"]:
    """Pictures cropped, lit anew and encoded anew.

    A square of 90 to 97 % of the side, wherever it lies, is resized back (Lanczos); light is multiplied by 0.85 to
    1.15, each colour by 0.95 to 1.05, and by a ramp of up to 15 % from left to right; gamma is e^-0.2 to e^0.2; last
    comes JPEG at quality 75.

    Args:
        images: square pictures.
        seed: picture i depends on (seed, i) alone.
    """
    return np.stack([_edited(image, np.random.default_rng((seed, i))) for i, image in enumerate(images)])


def _edited(image: UInt8[np.ndarray, "s s 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    size = len(image)
    side = size * rng.uniform(*CROP)
    left, top = rng.uniform(0, size - side, 2)
    box = (left, top, left + side, top + side)
    light = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box=box)) / 255.0
    light = light * (1 + rng.uniform(-GAIN, GAIN)) * rng.uniform(1 - TINT, 1 + TINT, 3)
    light = light * (1 + rng.uniform(-RAMP, RAMP) * np.linspace(-1, 1, size)[None, :, None])
    light = light.clip(0, 1) ** np.exp(rng.uniform(-GAMMA, GAMMA))
    return pictures.decode(pictures.encode_jpeg(np.rint(255 * light).astype(np.uint8), QUALITY))
