"""A feature extractor as packages see it that import none: weights, and a function from pictures to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from sface_jax.core.arrays import AnyArray


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A recogniser (or another network) that looks at pictures.

    Attributes:
        name: for logs.
        variables: its weights, a tree of arrays.
        apply: (variables, RGB pictures [n, h, w, 3] in [-1, 1], of any size) -> features [n, d], float32. Pure and
            differentiable, to be called under `jax.jit`. A recogniser's features have length one.
    """

    name: str
    variables: Any
    apply: Callable[[Any, Float[AnyArray, "n h w 3"]], Float[AnyArray, "n d"]]


OpenEmbedder = Callable[[str], Embedder]
"""(folder or file) -> the network in it; what `main` hands to the stages that look at pictures through one."""
