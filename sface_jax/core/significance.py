"""What many tests at once may claim."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def holm(p_values: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """p-values that allow for their number (Holm, 1979)."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)).clip(max=1)
    return steps[np.argsort(order)]
