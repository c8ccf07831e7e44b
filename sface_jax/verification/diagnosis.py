"""What is wrong with the way in which pictures are brought before a network, told from scores in many such ways."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sface_jax.verification.overrides import NORMALISATIONS, ORDERS

MARGIN = 1.03
"""By how much d' must be larger to matter: mirror images, used or not, are worth less than 3 %."""

LEVEL = 0.99  # of the intervals; not 0.95, because the best of many ways is held against the declared one
HOPELESS = 0.7  # the accuracy below which nothing is a match

_REPLICATES = 2000


class Way(NamedTuple):
    """How pictures are brought before a network, and what is made of the embeddings.

    Attributes:
        order: "rgb" or "bgr".
        normalisation: a name, see `overrides.name`.
        crop: the share of the pictures' side that is kept.
        flip: see `embed.fuse`.
    """

    order: str
    normalisation: str
    crop: float
    flip: str


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a way gave.

    Attributes:
        scores: cosine of each pair.
        right: whether each pair was decided rightly, with the threshold of its fold.
        d_prime: see `decidability`.
        accuracy: mean over the folds, in [0, 1].
        finite: whether all embeddings were finite; if not, all scores are 0.
    """

    scores: Float[np.ndarray, " p"]
    right: Bool[np.ndarray, " p"]
    d_prime: float
    accuracy: float
    finite: bool


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What is found.

    Attributes:
        verdict: "fine", "mismatch" or "hopeless".
        advised: the way to take.
        best: the way with the largest d'.
        gain: by how much the best way's d' and accuracy are above the declared one's, each with its interval of
            `LEVEL`: {"d_prime": (low, difference, high), "accuracy": (low, difference, high)}.
        sentence: all of it in words.
    """

    verdict: str
    advised: Way
    best: Way
    gain: dict[str, tuple[float, float, float]]
    sentence: str


def decidability(scores: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"]) -> float:
    """d' = (mu_m - mu_n) / sqrt((var_m + var_n) / 2) of mated and non-mated scores; 0 tells nothing.

    Finer than accuracy where there are few pairs (Daugman and Williams, "A proposed standard for biometric
    decidability", CardTech/SecureTech 1996), here with its sign.
    """
    mated, non_mated = (scores[same].astype(np.float64), scores[~same].astype(np.float64))
    return float(_d_prime(mated.mean(), mated.var(), non_mated.mean(), non_mated.var()))


def between(declared: Way, best: Way) -> list[Way]:
    """All ways that take each of their parts from the one or the other, both among them."""
    return list(dict.fromkeys(itertools.starmap(Way, itertools.product(*zip(declared, best, strict=True)))))


def diagnose(trials: dict[Way, Trial], same: Bool[np.ndarray, " p"], declared: Way, own: Way, tried: int) -> Diagnosis:
    """Compares the ways on the same pairs and explains what is wrong with the declared one.

    A way is beaten by the best one when, by a paired bootstrap over pairs, the interval of the difference in d' lies
    above 0 and the gain is not below `MARGIN`, or when that of the difference in accuracy lies above 0. Among the ways
    that are not beaten and themselves beat the declared one, that with the fewest changes is advised.

    Args:
        trials: of the finalists, the declared way among them.
        same: whether each pair is mated.
        declared: the way that is in use.
        own: what the network says of itself, for the flags.
        tried: how many ways were tried in all, for the sentence.
    """
    ways = sorted(trials, key=lambda way: -trials[way].d_prime)
    best = ways[0]
    bootstrap = _Bootstrap(trials, same)
    good = [way for way in ways if not bootstrap.beats(best, way)]
    better = [way for way in good if way == best or bootstrap.beats(way, declared)]
    advised = declared if declared in good else min(better, key=lambda way: _changes(declared, way))
    if max(trial.accuracy for trial in trials.values()) < HOPELESS:
        verdict, told = "hopeless", _hopeless(trials, declared, len(same), tried)
    elif advised == declared:
        verdict, told = "fine", _fine(trials, ways, declared, len(same), tried)
    else:
        seen = bootstrap.gain(advised, declared)["accuracy"][0] > 0
        verdict, told = "mismatch", _mismatch(trials, declared, advised, own, len(same), seen)
    return Diagnosis(verdict, advised, best, bootstrap.gain(best, declared), told)


class _Bootstrap:
    """Differences between ways over pairs drawn with replacement, mated and non-mated apart."""

    def __init__(self, trials: dict[Way, Trial], same: Bool[np.ndarray, " p"]):
        self.trials = trials
        self.number = {way: i for i, way in enumerate(trials)}
        scores = np.stack([trial.scores for trial in trials.values()]).astype(np.float64)
        right = np.stack([trial.right for trial in trials.values()]).astype(np.float64)
        rng = np.random.default_rng(0)
        moments, correct = [], np.zeros((_REPLICATES, len(trials)))
        for kind in (same, ~same):
            count = int(kind.sum())
            weights = rng.multinomial(count, np.full(count, 1 / count), _REPLICATES) / count  # [b, p]
            mean = weights @ scores[:, kind].T  # [b, w]
            moments += [mean, weights @ np.square(scores[:, kind]).T - np.square(mean)]
            correct += weights @ right[:, kind].T * count / len(same)
        self.d_prime, self.accuracy = _d_prime(*moments), correct

    def beats(self, way: Way, other: Way) -> bool:
        gain = self.gain(way, other)
        matters = self.trials[way].d_prime >= MARGIN * self.trials[other].d_prime
        return bool((matters and gain["d_prime"][0] > 0) or gain["accuracy"][0] > 0)

    def gain(self, way: Way, other: Way) -> dict[str, tuple[float, float, float]]:
        found = {}
        for figure, replicates in (("d_prime", self.d_prime), ("accuracy", self.accuracy)):
            tails = 50 * (1 - LEVEL)
            differences = replicates[:, self.number[way]] - replicates[:, self.number[other]]
            low, high = np.percentile(differences, [tails, 100 - tails])
            point = getattr(self.trials[way], figure) - getattr(self.trials[other], figure)
            found[figure] = (float(low), point, float(high))
        return found


def _d_prime(mean_m, var_m, mean_n, var_n):
    return (mean_m - mean_n) / np.sqrt(np.maximum((var_m + var_n) / 2, 1e-12))


def _changes(declared: Way, way: Way) -> int:
    return sum(a != b for a, b in zip(declared, way, strict=True))


def flags(declared: Way, way: Way, own: Way) -> str:
    """The flags of stage verify that lead from the declared way to another.

    Args:
        declared: what they change.
        way: what they lead to.
        own: what the network says of itself: `config.preprocessing` has all words that are not its own.
    """
    told = []
    if way[:2] != declared[:2]:
        parts = list(zip(declared, way, own, strict=True))[:2]
        words = [b for a, b, c in parts[::-1] if b != c or (a != b and b in (*ORDERS, *NORMALISATIONS))]
        told.append(
            f"--config.preprocessing={words[0]}" if len(words) == 1 else f'--config.preprocessing="{" ".join(words)}"'
        )
    told += [f"--config.crop={way.crop:g}"] if way.crop != declared.crop else []
    told += [f"--config.flip=\"('{way.flip}',)\""] if way.flip != declared.flip else []
    return " ".join(told)


def _in_short(declared: Way, way: Way) -> str:
    """What is changed, such as "bgr and crop 0.7"."""
    changed = [b for a, b in zip(declared[:2], way[:2], strict=True) if a != b]
    told = [" ".join(changed[::-1])] if changed else []
    told += [f"crop {way.crop:g}"] if way.crop != declared.crop else []
    told += [f"flip {way.flip}"] if way.flip != declared.flip else []
    return " and ".join(told)


def in_full(way: Way) -> str:
    """A way in words, such as "rgb, imagenet, crop 1, flip sum"."""
    return f"{way.order}, {way.normalisation}, crop {way.crop:g}, flip {way.flip}"


def _mismatch(trials: dict[Way, Trial], declared: Way, way: Way, own: Way, pairs: int, seen: bool) -> str:
    """The sentence where something is wrong; `seen` tells whether the accuracies bear it out, too."""
    wants = []
    if way.order != declared.order:
        wants.append(f"{way.order.upper()}, not {declared.order.upper()}")
    if way.normalisation != declared.normalisation:
        wants.append(f"the mean and std of {way.normalisation}, not of {declared.normalisation}")
    if way.crop != declared.crop:
        cut = "tighter" if way.crop < declared.crop else "looser"
        wants.append(f"a {cut} cut of the faces ({way.crop:g} of the pictures' side, not {declared.crop:g})")
    if way.flip != declared.flip:
        wants.append(f"flip {way.flip}, not {declared.flip}")
    before, after, short = trials[declared], trials[way], _in_short(declared, way)
    if seen:
        figures = f"{_percent(before)} as declared, {_percent(after)} with {short} on {pairs} pairs"
        figures += f" (d' {before.d_prime:.2f} and {after.d_prime:.2f})"
    else:
        figures = f"d' is {before.d_prime:.2f} as declared and {after.d_prime:.2f} with {short} on {pairs} pairs, "
        figures += f"too few for accuracy to tell ({_percent(before)} and {_percent(after)})"
    return f"The network wants {', and '.join(wants)}: {figures}; set {flags(declared, way, own)}"


def _fine(trials: dict[Way, Trial], ways: Sequence[Way], declared: Way, pairs: int, tried: int) -> str:
    best = "the best" if ways[0][:3] == declared[:3] else "within the noise of the best"
    told = f"Nothing is wrong: {_percent(trials[declared])} as declared ({in_full(declared)}) is {best} of {tried} ways"
    others = [way for way in ways if way[:3] != declared[:3]]
    if not others:
        return f"{told}, on {pairs} pairs"
    other, rank = others[0], "next best" if best == "the best" else "best"
    against = f"d' {trials[other].d_prime:.2f} against {trials[declared].d_prime:.2f}"
    with_ = _in_short(declared, other._replace(flip=declared.flip))
    return f"{told}, on {pairs} pairs; the {rank}, with {with_}, has {_percent(trials[other])} ({against})"


def _hopeless(trials: dict[Way, Trial], declared: Way, pairs: int, tried: int) -> str:
    if not any(trial.finite for trial in trials.values()):
        return f"None of {tried} ways gives embeddings that are finite: check the network's weights"
    way = max(trials, key=lambda way: trials[way].accuracy)
    return (
        f"None of {tried} ways gives more than {_percent(trials[way])} on {pairs} pairs ({in_full(way)}; "
        f"{_percent(trials[declared])} as declared): the pictures are not aligned as the network wants them, or it is "
        "no face recogniser"
    )


def _percent(trial: Trial) -> str:
    return f"{100 * trial.accuracy:.1f} %"
