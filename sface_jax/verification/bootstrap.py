"""Intervals of verification figures from a bootstrap over subjects.

The pairs of a benchmark share people, so that they are not independent and the spread over folds says too little. Here
subjects are drawn with replacement; a mated pair of subject s then counts w_s times, a non-mated pair of s and t
w_s w_t times, w being how often each was drawn (the two-way bootstrap of Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1(2), 2007; for biometrics Poh and Bengio, "Estimating the confidence interval of expected
performance curve in biometric authentication using joint bootstrap", ICASSP 2007). Such intervals are rather too wide
than too narrow.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

from sface_jax.verification import curves
from sface_jax.verification.protocol import ACCURACY_GRID, Comparisons

LEVEL = 0.95
FEWEST = 10  # subjects; of fewer no spread can be told
_AT_ONCE = 20


def intervals(drawn: Mapping[str, Float[np.ndarray, " _"]]) -> dict[str, tuple[float, float]]:
    """95 % intervals: the 2.5th and 97.5th percentiles over the replicates of each figure (`replicated`)."""
    tails = 100 * (1 - LEVEL) / 2
    told = {name: np.percentile(of, [tails, 100 - tails]) for name, of in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in told.items()}


def replicated(
    compared: Comparisons,
    first: Integer[np.ndarray, " p"],
    second: Integer[np.ndarray, " p"],
    *,
    rates: Sequence[float] = (1e-2, 1e-3),
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Float[np.ndarray, " _"]]:
    """A benchmark's figures on subjects drawn anew.

    Each replicate chooses its thresholds anew. Of another network on the same pairs replicate b has the same subjects,
    so that replicates of a difference are differences of replicates.

    Args:
        compared: the pairs.
        first: subject of each pair's first picture, 0, 1, ...
        second: subject of its second picture.
        rates: false match rates.
        replicates: how many.
        seed: chooses the subjects that are drawn.

    Returns:
        "accuracy" (see `protocol.kfold_accuracy`), and "tmr_at_fmr_<rate>", the highest true match rate over all pairs
        at a false match rate of at most that; where they could be told. Nothing with fewer than `FEWEST` subjects.
    """
    subjects = int(max(first.max(), second.max())) + 1
    if len(np.union1d(first, second)) < FEWEST:
        return {}
    order = compared.sweep.order
    ends = np.zeros(len(order), bool)
    ends[compared.sweep.ends()[1:] - 1] = True
    found = _replicates(
        jax.random.key(seed),
        np.searchsorted(ACCURACY_GRID, compared.sweep.distances, side="right").astype(np.int32),
        ends,
        compared.same[order],
        compared.fold[order].astype(np.int32),
        first[order].astype(np.int32),
        second[order].astype(np.int32),
        np.asarray(rates, np.float32),
        subjects=subjects,
        folds=compared.folds,
        replicates=-(-replicates // _AT_ONCE) * _AT_ONCE,
    )
    names = ["accuracy", *(f"tmr_at_fmr_{curves.rate_name(rate)}" for rate in rates)]
    drawn = [column[np.isfinite(column)] for column in np.asarray(found)[:replicates].T]
    return {name: of for name, of in zip(names, drawn, strict=True) if len(of)}


@functools.partial(jax.jit, static_argnames=("subjects", "folds", "replicates"))
def _replicates(
    key: Array,
    cell: Int[Array, " p"],
    ends: Bool[Array, " p"],
    same: Bool[Array, " p"],
    fold: Int[Array, " p"],
    first: Int[Array, " p"],
    second: Int[Array, " p"],
    rates: Float32[Array, " r"],
    *,
    subjects: int,
    folds: int,
    replicates: int,
) -> Float[Array, "b figures"]:
    """The figures of each replicate; pairs are in rising order of distance, `ends` marks the last of each tie."""
    cells = len(ACCURACY_GRID)
    place = (same * folds + fold) * (cells + 1) + cell

    def one(key: Array) -> Float[Array, " figures"]:
        drawn = jax.random.randint(key, (subjects,), 0, subjects)
        times = jnp.zeros(subjects, jnp.float32).at[drawn].add(1)
        weight = jnp.where(same, times[first], times[first] * times[second])  # [p]
        counts = jnp.zeros(2 * folds * (cells + 1), jnp.float32).at[place].add(weight).reshape(2, folds, -1)
        impostor, genuine = jnp.cumsum(counts, -1)[..., :-1]  # [folds, t]
        impostors, genuines = counts.sum(-1)[..., None]  # [folds, 1]
        correct = genuine + impostors - impostor
        best = jnp.argmax(correct.sum(0) - correct, axis=1)
        pairs = (impostors + genuines)[:, 0]
        right = jnp.take_along_axis(correct, best[:, None], axis=1)[:, 0] / pairs
        accuracy = jnp.mean(right, where=pairs > 0)
        false_matches = jnp.cumsum(jnp.where(same, 0, weight))
        matches = jnp.cumsum(jnp.where(same, weight, 0))
        allowed = rates[:, None] * false_matches[-1]
        tmr = jnp.max(jnp.where(ends & (false_matches <= allowed), matches, 0), axis=1) / matches[-1]
        return jnp.append(accuracy, tmr)

    return jax.lax.map(one, jax.random.split(key, replicates), batch_size=_AT_ONCE)
