"""Verification of pairs as the face recognition literature reports it, and beside it without its approximations.

`insightface` in results names InsightFace's verification.py: thresholds on a grid of squared Euclidean distances, pairs
accepted strictly below, folds in the order of the pairs. `exact` names what it approximates: a threshold may lie
anywhere between two distances, and the rates at a false match rate are counted over all pairs, without interpolation.
Distances are computed in float64, summed in NumPy's order, so that ties with the grid fall as they do there.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, Num

from sface_jax.core.errors import UserError
from sface_jax.verification import curves
from sface_jax.verification.sweep import Sweep, sweep

Embeddings = Num[Array | np.ndarray, "_p _d"]
Same = Bool[Array | np.ndarray, " _p"]

ACCURACY_GRID = np.arange(0, 4, 0.01)
RATE_GRID = np.arange(0, 4, 0.001)

_ROWS = 512  # pairs whose differences stay in the cache


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


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """Compared pairs, counted at every threshold; each figure of the protocol is a method of it.

    Attributes:
        distance: squared Euclidean distance of each pair.
        same: whether it is mated.
        fold: of each pair.
        folds: how many.
        sweep: counts by fold: of non-mated pairs, then of mated ones.
    """

    distance: Float64[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    fold: Int[np.ndarray, " p"]
    folds: int
    sweep: Sweep

    def accuracy(self) -> Accuracy:
        """InsightFace's accuracy, see `kfold_accuracy`."""
        impostor, genuine = self._below(ACCURACY_GRID)
        pairs = self._pairs()
        correct = self._correct(genuine, impostor)
        best = np.argmax(correct.sum(0) - correct, axis=1)
        per_fold = correct[np.arange(self.folds), best] / pairs
        return Accuracy(float(per_fold.mean()), float(per_fold.std()), per_fold, ACCURACY_GRID[best])

    def exact_accuracy(self) -> Accuracy:
        """Accuracy with the threshold of each fold halfway between two neighbouring distances of the other folds.

        Of the places where those are separated best, the one at the lowest distance is taken.
        """
        ends = self.sweep.ends()
        impostor, genuine = self.sweep.accepted[:, ends].reshape(2, self.folds, -1)
        correct = self._correct(genuine, impostor)
        best = ends[np.argmax(correct.sum(0) - correct, axis=1)]  # how many of the lowest distances are accepted
        fold = self.fold[self.sweep.order]
        thresholds = np.array([self._between(count, fold != f) for f, count in enumerate(best.tolist())])
        right = (self.distance < thresholds[self.fold]) == self.same
        per_fold = np.bincount(self.fold, right, self.folds) / self._pairs()
        return Accuracy(float(per_fold.mean()), float(per_fold.std()), per_fold, thresholds)

    def tar_at_far(self, far: float = 1e-3) -> TrueAcceptRate:
        """InsightFace's true accept rate, see the function `tar_at_far`."""
        impostor, _ = self._below(RATE_GRID)
        impostors, genuines = self.sweep.accepted[:, -1].reshape(2, self.folds)
        rates = (impostor.sum(0) - impostor) / np.maximum(impostors.sum() - impostors, 1)[:, None]
        thresholds = np.array([_threshold_at(of_training, far) for of_training in rates])
        below = self.distance < thresholds[self.fold]
        with np.errstate(invalid="ignore"):
            tar = np.bincount(self.fold, below & self.same, self.folds) / genuines
            reached = np.bincount(self.fold, below & ~self.same, self.folds) / impostors
        mean, std, reached = (float(figure) for figure in (np.nanmean(tar), np.nanstd(tar), np.nanmean(reached)))
        return TrueAcceptRate(mean, std, reached, tar, thresholds)

    def grid_roc(self) -> tuple[Float[np.ndarray, " 400"], Float[np.ndarray, " 400"]]:
        """InsightFace's ROC: false and true accept rates at `ACCURACY_GRID`, means over the folds that have them."""
        counts = self._below(ACCURACY_GRID)
        totals = self.sweep.accepted[:, -1].reshape(2, self.folds, 1)
        with np.errstate(invalid="ignore"):
            fpr, tpr = np.nanmean(counts / totals, axis=1)
        return fpr, tpr

    def points(self) -> curves.OperatingPoints:
        """What is accepted at every threshold on the negative squared distance, over all pairs."""
        ends = self.sweep.ends()
        impostor, genuine = self.sweep.accepted.reshape(2, self.folds, -1).sum(1)[:, ends[::-1]]
        # with k pairs accepted, the lowest threshold that does so is the score of the k-th
        scores = np.append(-self.sweep.distances[ends[:0:-1] - 1], np.inf)
        return curves.OperatingPoints(scores, impostor, genuine)

    def _below(self, grid: Float[np.ndarray, " t"]) -> Int[np.ndarray, "2 folds t"]:
        return self.sweep.below(grid).reshape(2, self.folds, -1)

    def _pairs(self) -> Int[np.ndarray, " folds"]:
        return self.sweep.accepted[:, -1].reshape(2, self.folds).sum(0)

    def _correct(
        self, genuine: Int[np.ndarray, "folds t"], impostor: Int[np.ndarray, "folds t"]
    ) -> Int[np.ndarray, "folds t"]:
        """Right decisions: accepted mated and rejected non-mated pairs."""
        return genuine - impostor + self.sweep.accepted[: self.folds, -1:]

    def _between(self, count: int, training: Bool[np.ndarray, " p"]) -> float:
        """Halfway between the neighbours, among the training pairs, of the gap behind the `count` lowest distances."""
        low = self.sweep.distances[:count][training[:count]]
        high = self.sweep.distances[count:][training[count:]]
        if not len(low):
            return 0.0
        if not len(high):
            return float(np.nextafter(low[-1], np.inf))
        return float(max((low[-1] + high[0]) / 2, np.nextafter(low[-1], np.inf)))


def compare(a: Embeddings, b: Embeddings, same: Same, folds: int = 10, *, uneven: bool = False) -> Comparisons:
    """Compares pairs, and counts them at every threshold.

    Args:
        a: embeddings of the first picture of each pair.
        b: embeddings of the second pictures.
        same: whether the two show one person.
        folds: contiguous blocks of pairs in the given order.
        uneven: allow a number of pairs that is no multiple of `folds`: the first P mod `folds` have one pair more.

    Raises:
        UserError: the numbers of embeddings and labels differ, an embedding is not finite, all pairs are of one kind,
            or the folds do not divide the pairs.
    """
    distance, same = _compared(a, b, same)
    check_folds(len(same), folds, uneven)
    fold = np.repeat(np.arange(folds), [len(part) for part in np.array_split(same, folds)])
    return Comparisons(distance, same, fold, folds, sweep(distance, same * folds + fold, 2 * folds))


def check_folds(pairs: int, folds: int, uneven: bool = False, flag: str = "uneven=True") -> None:
    """Refuses folds that do not divide the pairs, but where `uneven` allows them; `flag` is how to say so.

    Raises:
        UserError: see above.
    """
    if folds < 2 or pairs < folds:
        raise UserError(f"{folds} folds need at least 2 folds and {max(folds, 2)} pairs, got {pairs} pairs")
    if pairs % folds and not uneven:
        divisors = [n for n in range(2, min(pairs, 100) + 1) if pairs % n == 0]
        nearest = sorted(sorted(divisors, key=lambda n: abs(n - folds))[:2])
        use = f"use {' or '.join(map(str, nearest))} folds, or " if nearest else ""
        raise UserError(
            f"{pairs} pairs do not divide into {folds} folds: {use}allow folds of unequal length, as InsightFace has "
            f"them ({flag})"
        )


def kfold_accuracy(a: Embeddings, b: Embeddings, same: Same, folds: int = 10, *, uneven: bool = False) -> Accuracy:
    """Accuracy with the threshold of each fold chosen on the others (`evaluate` of InsightFace's verification.py).

    Thresholds are 0, 0.01, ... 3.99; among equally accurate ones the lowest is taken.

    Args:
        a: embeddings of the first picture of each pair, L2-normalised for the thresholds to make sense.
        b: embeddings of the second pictures.
        same: whether the two show one person.
        folds: see `compare`.
        uneven: see `compare`.

    Raises:
        UserError: see `compare`.
    """
    return compare(a, b, same, folds, uneven=uneven).accuracy()


def exact_accuracy(a: Embeddings, b: Embeddings, same: Same, folds: int = 10, *, uneven: bool = False) -> Accuracy:
    """Accuracy with thresholds that may lie anywhere, see `Comparisons.exact_accuracy`; arguments as `kfold_accuracy`.

    Raises:
        UserError: see `compare`.
    """
    return compare(a, b, same, folds, uneven=uneven).exact_accuracy()


def tar_at_far(
    a: Embeddings, b: Embeddings, same: Same, far: float = 1e-3, folds: int = 10, *, uneven: bool = False
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
        folds: see `compare`.
        uneven: see `compare`.

    Raises:
        UserError: see `compare`.
    """
    return compare(a, b, same, folds, uneven=uneven).tar_at_far(far)


def roc(
    a: Embeddings, b: Embeddings, same: Same, points: int = 200
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """The ROC curve over all pairs, thinned for drawing.

    Returns:
        False match rates and true match rates, both rising from 0 to 1, at most `points` of each.

    Raises:
        UserError: see `compare`.
    """
    distance, same = _compared(a, b, same)
    found = curves.operating_points(-distance[same], -distance[~same])
    kept = curves.thin(found.fmr, found.fnmr, points)[::-1]
    return found.fmr[kept], 1 - found.fnmr[kept]


def grid_roc(
    a: Embeddings, b: Embeddings, same: Same, folds: int = 10, *, uneven: bool = False
) -> tuple[Float[np.ndarray, " 400"], Float[np.ndarray, " 400"]]:
    """InsightFace's ROC, see `Comparisons.grid_roc`; arguments as `kfold_accuracy`.

    Returns:
        False and true accept rates at each of the `ACCURACY_GRID`.

    Raises:
        UserError: see `compare`.
    """
    return compare(a, b, same, folds, uneven=uneven).grid_roc()


def _compared(a: Embeddings, b: Embeddings, same: Same) -> tuple[Float64[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """The squared distance of each pair, and whether it is mated; see `compare` for what is refused."""
    a, b, same = np.asarray(a), np.asarray(b), np.asarray(same, bool)
    if not (a.ndim == 2 and a.shape == b.shape and same.shape == (len(a),)):
        raise UserError(
            f"first and second embeddings of shapes {a.shape} and {b.shape} do not go with {len(same)} labels: each "
            "pair needs two embeddings of one length, and one label"
        )
    if same.all() or not same.any():
        raise UserError(
            f"all {len(same)} pairs are {'mated' if same.all() else 'non-mated'}: a benchmark needs pairs of the same "
            "person and pairs of different people, check the labels"
        )
    distance = _distances(a, b)
    broken = np.flatnonzero(~np.isfinite(distance))
    if len(broken):
        raise UserError(
            f"the embeddings of {len(broken)} of {len(a)} pairs are not finite, the first of them pair {broken[0]}: "
            "check the network's weights and its preprocessing"
        )
    return distance, same


def _distances(a: Num[np.ndarray, "p d"], b: Num[np.ndarray, "p d"]) -> Float64[np.ndarray, " p"]:
    """sum((a - b)^2) in float64, in blocks that stay in the cache."""
    found = np.empty(len(a))
    first, second = np.empty((2, _ROWS, a.shape[1]))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, min(start + _ROWS, len(a)))
        x, y = first[: rows.stop - start], second[: rows.stop - start]
        np.copyto(x, a[rows])
        np.copyto(y, b[rows])
        x -= y
        x *= x
        x.sum(1, out=found[rows])
    return found


def _threshold_at(rate: Float[np.ndarray, " t"], far: float) -> float:
    """The squared distance at which the false accept rate of the training folds is `far`; 0 if it never is."""
    if rate[-1] < far:
        return 0.0
    last = int(np.searchsorted(rate, far, side="right")) - 1
    if rate[last] == far or last == len(rate) - 1:
        return float(RATE_GRID[last])
    slope = (RATE_GRID[last + 1] - RATE_GRID[last]) / (rate[last + 1] - rate[last])
    return float(RATE_GRID[last] + slope * (far - rate[last]))
