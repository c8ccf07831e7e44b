"""Counts of accepted comparisons at every threshold at once: one sort and cumulative sums on the device.

Distances are float64 and stay exact on devices that have no such numbers: a float64 that is not negative has the order
of its bits, which the device sorts as two whole numbers of 32 bits.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Integer, UInt32

_MULTIPLE = 1024  # to which numbers of comparisons are padded, so that few programs are compiled
_LAST = np.uint64(2**64 - 1)  # bits above those of every number


class Sweep(NamedTuple):
    """What is accepted at each threshold, a comparison being accepted when its distance is < the threshold.

    Attributes:
        distances: in rising order.
        order: where each stood before.
        accepted: entry [g, k] counts those of group g among the k lowest distances. Where distances are tied only the
            columns before and after the tie are of use.
    """

    distances: Float64[np.ndarray, " p"]
    order: Int[np.ndarray, " p"]
    accepted: Int[np.ndarray, "groups p+1"]

    def below(self, thresholds: Float64[np.ndarray, " t"]) -> Int[np.ndarray, "groups t"]:
        """How many of each group have a distance strictly below each threshold."""
        return self.accepted[:, np.searchsorted(self.distances, thresholds, side="left")]

    def ends(self) -> Int[np.ndarray, " columns"]:
        """The columns of `accepted` that a threshold can tell apart: 0, and the end of every tie."""
        return np.flatnonzero(np.append(True, np.append(np.diff(self.distances) > 0, True)))


def sweep(distances: Float64[np.ndarray, " p"], group: Integer[np.ndarray, " p"], groups: int) -> Sweep:
    """Sorts distances and counts each group along them.

    Args:
        distances: finite and not negative.
        group: of each, 0..groups - 1.
        groups: how many there are.
    """
    count = len(distances)
    padding = (0, -count % _MULTIPLE)
    bits = np.pad((distances + 0.0).view(np.uint64), padding, constant_values=_LAST)  # -0.0 + 0.0 is 0.0
    high, low = (bits >> np.uint64(32)).astype(np.uint32), bits.astype(np.uint32)
    of_none = np.pad(group.astype(np.int32), padding, constant_values=groups)
    order, accepted = jax.device_get(_sorted_counts(high, low, of_none, groups))
    return Sweep(distances[order[:count]], order[:count], accepted[: count + 1].T)


@functools.partial(jax.jit, static_argnames="groups")
def _sorted_counts(
    high: UInt32[Array, " p"], low: UInt32[Array, " p"], group: Int[Array, " p"], groups: int
) -> tuple[Int[Array, " p"], Int[Array, "p+1 groups"]]:
    *_, order = jax.lax.sort((high, low, jnp.arange(len(high), dtype=jnp.int32)), num_keys=2)
    members = group[order][:, None] == jnp.arange(groups, dtype=group.dtype)  # [p, groups]
    return order, jnp.pad(jnp.cumsum(members, axis=0, dtype=jnp.int32), [(1, 0), (0, 0)])
