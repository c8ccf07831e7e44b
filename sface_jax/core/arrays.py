"""The array types that functions take."""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray
"""A JAX array or a NumPy one, for annotations: `Float[AnyArray, "n d"]`."""
