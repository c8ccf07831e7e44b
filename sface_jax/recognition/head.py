"""The classifier on top of a backbone, used in training only."""

from __future__ import annotations

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from sface_jax.recognition.losses import normalise


class ClassifierHead(nn.Module):
    """Cosines between embeddings and one weight vector per class.

    Attributes:
        num_classes: c.
    """

    num_classes: int

    @nn.compact
    def __call__(self, embeddings: Float[Array, "n d"]) -> Float[Array, "n c"]:
        """Returns cosines, float32; both sides are normalised here."""
        weight = self.param("weight", nn.initializers.normal(0.01), (self.num_classes, embeddings.shape[-1]))
        # Margins act on differences of 1e-2 in the cosine: no fast, coarse matrix product here.
        return jax.lax.dot_general(
            normalise(embeddings), normalise(weight), (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST
        )
