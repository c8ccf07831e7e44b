"""How good a conditional generator's pictures are, judged by features of them: close to the authentic, and varied.

All of it runs on the host in float64 and in bounded memory: no matrix of n x n is ever whole. Features may be those
of a recogniser (rows of length one) or of Inception (any length).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sface_jax.core.arrays import AnyArray

Features = Float[AnyArray, "n d"]
Others = Float[AnyArray, "m d"]
Labels = Int[AnyArray, " n"]
OtherLabels = Int[AnyArray, " m"]

MEASURES = (
    *("frechet", "kernel", "precision", "recall"),
    *("intra_authentic", "inter_authentic", "intra_synthetic", "inter_synthetic"),
    *("spread_ratio", "label_similarity", "label_rank1"),
)
"""The keys of what `measure` returns, in this order."""

COLLAPSED_BELOW = 0.4
"""A class that spreads less than this share of the authentic spread has collapsed: our choice."""

_ROWS = 1024  # rows of a block
_ROUNDING = 1e-12  # of squared lengths: what is smaller in a squared distance is no distance


def measure(
    authentic: Features,
    authentic_labels: Labels,
    synthetic: Others,
    synthetic_labels: OtherLabels,
    k: int = 3,
) -> dict[str, float]:
    """Takes every measure of a set of synthetic pictures against the authentic ones they were learned from.

    The kernel's scale is 1/d for Inception's features, as published, and 1 for features of length one, whose products
    do not grow with d. Similarities are cosines, of features of any length.

    Args:
        authentic: features of authentic pictures, at least two.
        authentic_labels: their classes.
        synthetic: features of synthetic pictures, at least two.
        synthetic_labels: their classes.
        k: neighbours of `precision_recall`; fewer where there are no more pictures.

    Returns:
        `MEASURES`: frechet, kernel (lower is better), precision, recall (0..1), mean cosines intra_* and inter_* (see
        `class_similarity`), spread_ratio (see there), label_similarity and label_rank1 (see `label_consistency`).
        nan is what cannot be told: everything where a feature is not finite, similarities without a pair.

    Raises:
        ValueError: fewer than two pictures on a side.
    """
    a, s = _rows(authentic), _rows(synthetic)
    if not (np.isfinite(a).all() and np.isfinite(s).all()):
        return dict.fromkeys(MEASURES, math.nan)
    precision, recall = precision_recall(a, s, min(k, len(a) - 1, len(s) - 1))
    unit_a, unit_s = _unit(a), _unit(s)
    of_authentic = class_similarity(unit_a, authentic_labels)
    of_synthetic = class_similarity(unit_s, synthetic_labels)
    similarity, rank1 = label_consistency(unit_a, authentic_labels, unit_s, synthetic_labels)
    told = (
        *(frechet_distance(a, s), kernel_distance(a, s, 1.0 if np.allclose(unit_a, a, atol=1e-3) else None)),
        *(precision, recall, of_authentic.intra, of_authentic.inter, of_synthetic.intra, of_synthetic.inter),
        *(spread_ratio(of_authentic, of_synthetic), similarity, rank1),
    )
    return dict(zip(MEASURES, told, strict=True))


def frechet_distance(a: Features, b: Others) -> float:
    """The Fréchet distance of two normal distributions with the samples' means and covariances (squared, as in FID).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): Dowson and Landau 1982; as a measure of pictures Heusel et al.
    2017 (arXiv 1706.08500). With triangular R_a, R_b such that S = R^T R, the eigenvalues of S_a S_b are the squared
    singular values of R_a R_b^T, so that the root's trace is the sum of these: exact for singular covariances too.

    Args:
        a: one sample, at least two rows.
        b: the other.

    Raises:
        ValueError: a sample of fewer than two.
    """
    a, b = _rows(a), _rows(b)
    r_a, r_b = _covariance_root(a), _covariance_root(b)
    root_trace = np.linalg.svd(r_a @ r_b.T, compute_uv=False).sum()
    means = np.square(a.mean(0) - b.mean(0)).sum()
    return float(max(means + np.square(r_a).sum() + np.square(r_b).sum() - 2 * root_trace, 0.0))


def kernel_distance(a: Features, b: Others, scale: float | None = None) -> float:
    """The squared maximum mean discrepancy with a cubic kernel: the "KID" of Binkowski et al. 2018 (arXiv 1801.01401).

    k(x, y) = (scale x.y + 1)^3. The estimate over the whole samples is unbiased, and so may be below 0.

    Args:
        a: one sample, at least two rows.
        b: the other.
        scale: 1/d unless given.

    Raises:
        ValueError: a sample of fewer than two.
    """
    a, b = _rows(a), _rows(b)
    scale = 1 / a.shape[1] if scale is None else scale

    def total(x: np.ndarray, y: np.ndarray) -> float:
        return sum(float(((scale * (x[rows] @ y.T) + 1) ** 3).sum()) for rows in _blocks(len(x)))

    def among(x: np.ndarray) -> float:
        self_pairs = ((scale * np.square(x).sum(1) + 1) ** 3).sum()
        return (total(x, x) - float(self_pairs)) / (len(x) * (len(x) - 1))

    return among(a) + among(b) - 2 * total(a, b) / (len(a) * len(b))


def precision_recall(authentic: Features, synthetic: Others, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991).

    A sample's manifold is the union of the balls around its points that reach to their k-th nearest neighbours.
    Precision is the share of synthetic pictures in the authentic manifold (are they plausible?), recall the share of
    authentic pictures in the synthetic one (is everything covered?).

    Raises:
        ValueError: k is no number of neighbours that both samples have.
    """
    a, s = _rows(authentic), _rows(synthetic)
    if not 1 <= k < min(len(a), len(s)):
        raise ValueError(f"k={k} neighbours of each picture need more than k pictures, here {len(a)} and {len(s)}")
    radii_a, radii_s = _radii(a, k), _radii(s, k)
    in_authentic, in_synthetic = np.zeros(len(s), bool), np.zeros(len(a), bool)
    for rows in _blocks(len(s)):
        distances = _squared_distances(s[rows], a)
        in_authentic[rows] = (distances <= radii_a).any(1)
        in_synthetic |= (distances <= radii_s[rows, None]).any(0)
    return float(in_authentic.mean()), float(in_synthetic.mean())


class ClassSimilarity(NamedTuple):
    """Cosines between pictures of a labelled set.

    Attributes:
        intra: mean over the pairs of two pictures of one class.
        inter: mean over the pairs of two classes.
        classes: the labels that occur.
        spread: of each, 1 - the mean cosine of its pairs; nan for a class of one picture.
    """

    intra: float
    inter: float
    classes: Int[np.ndarray, " c"]
    spread: Float[np.ndarray, " c"]


def class_similarity(features: Features, labels: Labels) -> ClassSimilarity:
    """Means over all pairs, exact, from the sums s_c of each class: |s_c|^2 is the sum of x_i.x_j over all its i, j.

    Args:
        features: rows of length one.
        labels: their classes.
    """
    x = np.asarray(features, np.float64)
    classes, at = np.unique(np.asarray(labels), return_inverse=True)
    sums, counts = _class_sums(x, at, len(classes)), np.bincount(at)
    squares = np.square(sums).sum(1)  # [c]
    pairs = counts * (counts - 1)
    within = squares - np.bincount(at, np.square(x).sum(1))
    between = np.square(sums.sum(0)).sum() - squares.sum()
    spread = 1 - _ratio(within, pairs)
    intra = _ratio(within.sum(), pairs.sum())
    inter = _ratio(between, len(x) ** 2 - np.square(counts).sum())
    return ClassSimilarity(float(intra), float(inter), classes, spread)


def spread_ratio(authentic: ClassSimilarity, synthetic: ClassSimilarity) -> float:
    """How far a class's synthetic pictures spread, as a share of its authentic ones; the median over classes.

    1: as varied as the authentic; 0: every picture of a class is alike. nan where no class has two pictures on either
    side.
    """
    _, a, s = np.intersect1d(authentic.classes, synthetic.classes, assume_unique=True, return_indices=True)
    ratios = _ratio(synthetic.spread[s], np.where(authentic.spread[a] > _ROUNDING, authentic.spread[a], 0))
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) else math.nan


def collapsed(ratio: float, threshold: float = COLLAPSED_BELOW) -> bool:
    """Whether a `spread_ratio` says that the generator repeats itself within classes; nan says nothing."""
    return ratio < threshold


def label_consistency(
    authentic: Features, authentic_labels: Labels, synthetic: Others, synthetic_labels: OtherLabels
) -> tuple[float, float]:
    """Whether synthetic pictures look like the class they were asked for, whose authentic centre is its mean direction.

    Args:
        authentic: features of length one.
        authentic_labels: their classes.
        synthetic: features of length one; those of a class without authentic pictures are passed over.
        synthetic_labels: their classes.

    Returns:
        Mean cosine of a synthetic picture with its own class's centre, and the share of synthetic pictures to which
        no other centre is nearer (rank 1). nan where no class is shared.
    """
    classes, at = np.unique(np.asarray(authentic_labels), return_inverse=True)
    centres = _unit(_class_sums(np.asarray(authentic, np.float64), at, len(classes)))
    own = np.searchsorted(classes, np.asarray(synthetic_labels)).clip(max=len(classes) - 1)
    known = classes[own] == np.asarray(synthetic_labels)
    s, own = np.asarray(synthetic, np.float64)[known], own[known]
    cosines, first = np.empty(len(s)), np.empty(len(s), bool)
    for rows in _blocks(len(s)):
        to_all = s[rows] @ centres.T
        cosines[rows] = np.take_along_axis(to_all, own[rows, None], 1)[:, 0]
        first[rows] = to_all.argmax(1) == own[rows]
    return (float(cosines.mean()), float(first.mean())) if len(s) else (math.nan, math.nan)


def _rows(features: Float[AnyArray, "n d"]) -> Float[np.ndarray, "n d"]:
    if len(features) < 2:
        raise ValueError(f"a distribution of {len(features)} pictures cannot be measured: take two at least")
    return np.asarray(features, np.float64)


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _covariance_root(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "r d"]:
    """R with R^T R = the sample's unbiased covariance, of min(n, d) rows."""
    return np.linalg.qr(x - x.mean(0), mode="r") / math.sqrt(len(x) - 1)


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS):
        yield slice(start, min(start + _ROWS, count))


def _squared_distances(x: Float[np.ndarray, "b d"], y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "b n"]:
    lengths = np.square(x).sum(1)[:, None] + np.square(y).sum(1)
    distances = lengths - 2 * (x @ y.T)
    distances[distances < _ROUNDING * lengths] = 0  # equal pictures are not apart, whatever rounding leaves
    return distances


def _radii(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """Squared distance of every row to its k-th nearest neighbour among the others."""
    radii = np.empty(len(x))
    for rows in _blocks(len(x)):
        distances = _squared_distances(x[rows], x)
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def _class_sums(x: Float[np.ndarray, "n d"], at: Int[np.ndarray, " n"], count: int) -> Float[np.ndarray, "c d"]:
    sums = np.zeros((count, x.shape[1]))
    np.add.at(sums, at, x)
    return sums


def _ratio(over: np.ndarray | np.floating, under: np.ndarray | np.integer) -> np.ndarray:
    """over / under, nan where nothing is below the line."""
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)
