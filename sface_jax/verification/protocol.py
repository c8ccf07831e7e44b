"""Verification accuracy as the face recognition literature reports it: InsightFace's ten-fold protocol.

Pairs are accepted when their squared Euclidean distance is strictly below a threshold which is chosen on the
other folds. Distances and rates are computed in float64.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from sface_jax.core.errors import UserError
from sface_jax.verification import curves

Embeddings = Num[Array | np.ndarray, "p d"]
Same = Bool[Array | np.ndarray, " p"]

ACCURACY_GRID = np.arange(0, 4, 0.01)
RATE_GRID = np.arange(0, 4, 0.001)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracy over the folds.

    Attributes:
        mean: mean accuracy of the test folds, in [0, 1].
        std: their standard deviation, divided by the number of folds.
        per_fold: accuracy of each test fold.
        thresholds: squared distance chosen for each test fold on the other folds.
    """

    mean: float
    std: float
    per_fold: Float[np.ndarray, " folds"]
    thresholds: Float[np.ndarray, " folds"]


@dataclasses.dataclass(frozen=True)
class TrueAcceptRate:
    """True accept rate at a false accept rate.

    Attributes:
        mean: mean true accept rate of the test folds, in [0, 1].
        std: their standard deviation, divided by the number of folds.
        far: mean false accept rate the test folds really had.
        per_fold: true accept rate of each test fold.
        thresholds: squared distance chosen for each test fold on the other folds.
    """

    mean: float
    std: float
    far: float
    per_fold: Float[np.ndarray, " folds"]
    thresholds: Float[np.ndarray, " folds"]


def kfold_accuracy(a: Embeddings, b: Embeddings, same: Same, folds: int = 10) -> Accuracy:
    """Accuracy with the threshold of each fold chosen on the others (`evaluate` of InsightFace's verification.py).

    Thresholds are 0, 0.01, ... 3.99; among equally accurate ones the lowest is taken.

    Args:
        a: embeddings of the first picture of each pair, L2-normalised for the thresholds to make sense.
        b: embeddings of the second pictures.
        same: whether the two show one person.
        folds: contiguous blocks of pairs in the given order; the first P mod `folds` have one pair more.

    Raises:
        UserError: there are fewer pairs than folds.
    """
    distance, same, fold = _distances(a, b, same, folds)
    genuine = _accepted(distance[same], fold[same], folds, ACCURACY_GRID)
    impostor = _accepted(distance[~same], fold[~same], folds, ACCURACY_GRID)
    genuines, pairs = np.bincount(fold[same], minlength=folds), np.bincount(fold, minlength=folds)
    # correct[f, t] = accepted genuine + rejected impostor pairs of fold f
    correct = genuine - impostor + (pairs - genuines)[:, None]
    best = np.argmax(correct.sum(0) - correct, axis=1)
    per_fold = correct[np.arange(folds), best] / pairs
    return Accuracy(float(per_fold.mean()), float(per_fold.std()), per_fold, ACCURACY_GRID[best])


def tar_at_far(
    a: Embeddings,
    b: Embeddings,
    same: Same,
    far: float = 1e-3,
    folds: int = 10,
) -> TrueAcceptRate:
    """True accept rate at a false accept rate, the threshold of each fold interpolated on the others.

    The threshold lies between the last grid point (steps of 0.001) whose false accept rate is not above `far` and the
    next one, where the straight line between their rates meets `far`; it is 0 where no grid point reaches `far`.
    Folds without genuine (impostor) pairs are left out of the mean true (false) accept rate.

    Args:
        a: embeddings of the first picture of each pair.
        b: embeddings of the second pictures.
        same: whether the two show one person.
        far: wanted false accept rate, in (0, 1).
        folds: as in `kfold_accuracy`.

    Raises:
        UserError: there are fewer pairs than folds, or no genuine or no impostor pair at all.
    """
    distance, same, fold = _distances(a, b, same, folds)
    if same.all() or not same.any():
        raise UserError("TAR at FAR needs pairs of the same and pairs of different people: check the pairs file")
    impostor = _accepted(distance[~same], fold[~same], folds, RATE_GRID)
    impostors = np.bincount(fold[~same], minlength=folds)
    genuines = np.bincount(fold[same], minlength=folds)
    train_accepts, train_impostors = impostor.sum(0) - impostor, impostors.sum() - impostors
    train_rates = train_accepts / np.maximum(train_impostors, 1)[:, None]
    thresholds = np.array([_threshold_at(rates, far) for rates in train_rates])
    below = distance < thresholds[fold]
    with np.errstate(invalid="ignore"):
        tar = np.bincount(fold[same], below[same], folds) / genuines
        reached = np.bincount(fold[~same], below[~same], folds) / impostors
    return TrueAcceptRate(float(np.nanmean(tar)), float(np.nanstd(tar)), float(np.nanmean(reached)), tar, thresholds)


def roc(
    a: Embeddings, b: Embeddings, same: Same, points: int = 200
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """The ROC curve over all pairs, thinned for drawing.

    Returns:
        False match rates and true match rates, both rising from 0 to 1, at most `points` of each.

    Raises:
        UserError: no genuine or no impostor pair.
    """
    distance, same, _ = _distances(a, b, same, folds=1)
    if same.all() or not same.any():
        raise UserError("a ROC curve needs pairs of the same and pairs of different people: check the pairs file")
    all_points = curves.operating_points(-distance[same], -distance[~same])
    fmr, fnmr = all_points.fmr, all_points.fnmr
    kept = curves.thin(fmr, fnmr, points)[::-1]
    return fmr[kept], 1 - fnmr[kept]


def _distances(
    a: Embeddings, b: Embeddings, same: Same, folds: int
) -> tuple[Float[np.ndarray, " p"], Bool[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Squared Euclidean distances, the booleans and the fold of each pair."""
    a, b, same = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(same, bool)
    if not (a.shape == b.shape and a.ndim == 2 and same.shape == (len(a),)):
        raise ValueError(f"a, b and same must be [p, d], [p, d] and [p], got {a.shape}, {b.shape} and {same.shape}")
    if len(a) < max(folds, 1):
        raise UserError(f"{folds} folds need at least {folds} pairs, got {len(a)}: use more pairs or fewer folds")
    fold = np.repeat(np.arange(folds), [len(part) for part in np.array_split(np.arange(len(a)), folds)])
    return np.square(a - b).sum(1), same, fold


def _accepted(
    distance: Float[np.ndarray, " p"], fold: Int[np.ndarray, " p"], folds: int, grid: Float[np.ndarray, " t"]
) -> Int[np.ndarray, "folds t"]:
    """How many pairs of each fold have a distance strictly below each threshold of the grid."""
    first = np.searchsorted(grid, distance, side="right")  # index of the first threshold above the distance
    cells = np.bincount(fold * (len(grid) + 1) + first, minlength=folds * (len(grid) + 1))
    return np.cumsum(cells.reshape(folds, -1), axis=1)[:, :-1]


def _threshold_at(rate: Float[np.ndarray, " t"], far: float) -> float:
    """The squared distance at which the false accept rate of the training folds is `far`; 0 if it never is."""
    if rate[-1] < far:
        return 0.0
    last = int(np.searchsorted(rate, far, side="right")) - 1
    if rate[last] == far or last == len(rate) - 1:
        return float(RATE_GRID[last])
    slope = (RATE_GRID[last + 1] - RATE_GRID[last]) / (rate[last + 1] - rate[last])
    return float(RATE_GRID[last] + slope * (far - rate[last]))
