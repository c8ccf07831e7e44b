"""What the report calls things, how it writes numbers, and its one-line explanations for a lay reader."""

from __future__ import annotations

import math
from collections.abc import Callable

DASH = "–"
UNIT = "\N{NO-BREAK SPACE}%"
NARROW = "\N{NARROW NO-BREAK SPACE}"

# network -> (label, what it was trained on, role of its colour)
NETWORKS = {
    "authentic": ("authentic", "authentic pictures: the ceiling, and the teacher", "authentic"),
    "teacher": ("teacher", "authentic pictures", "authentic"),
    "classification": ("classification", "synthetic pictures and their labels", "synthetic"),
    "distillation": ("distillation", "synthetic pictures and the teacher's answers to them", "distillation"),
    "combined": ("combined", "synthetic pictures, their labels and the teacher's answers", "combined"),
}
MATCHER = ("matcher", "authentic pictures of other identities: the audit's own tool", "other")
SYNTHETIC = ("classification", "distillation", "combined")

STAGES = {
    "prepare": "prepare the dataset",
    "gan": "train the generator",
    "synthesize": "draw the synthetic dataset",
    "recognition": "train a recogniser",
    "verify": "measure verification accuracy",
    "privacy": "audit the privacy",
    "overlap": "compare identities of sets",
    "export": "export",
}

SPLITS = {"train": "authentic, for training", "heldout": "authentic, held out", "matcher": "authentic, for the matcher"}

BENCHMARKS = {"heldout": "pairs of held-out people, whom nothing was trained on", "view1": "View 1's test pairs"}

# how a generator's pictures are measured while it learns
MEASURES = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "label_rank1": "share of pictures nearest to their own class",
    "label_similarity": "similarity to the authentic pictures of the class",
    "spread_ratio": "spread within classes",
}

GLOSSARY = {
    "Authentic, synthetic": "An authentic picture was taken of an identity; a synthetic one was drawn by the "
    "generator, asked for that identity.",
    "Mated, non-mated": "Two pictures of the same identity are mated; two of different identities are not.",
    "Comparison score": "How alike a recogniser finds two pictures: the cosine between their embeddings, from -1 to 1.",
    "FMR, false match rate": "The share of non-mated pairs whose score reaches the threshold: strangers taken for the "
    "same person.",
    "FNMR, false non-match rate": "The share of mated pairs whose score stays below the threshold: the same person "
    "turned away.",
    "EER, equal error rate": "The error where FMR and FNMR are equal; 0 % is perfect separation, 50 % a coin toss.",
    "FMR100, FMR1000": "The FNMR at the threshold that lets 1 in 100, or 1 in 1000, non-mated pairs through.",
    "TAR at FAR 1e-3": "The share of mated pairs accepted where 1 in 1000 non-mated pairs is (1 - FNMR at FMR 0.1 %).",
    "FDR, Fisher discriminant ratio": "Squared distance of the mean scores over the sum of their variances; more means "
    "better separated.",
    "AUC": "The chance that a mated pair scores above a non-mated one; 0.5 is a coin toss.",
    "D_sys": "Linkability after Gomez-Barrero et al.: 0 where mated and non-mated scores are indistinguishable, 1 "
    "where fully apart.",
    "Frozen threshold": "A threshold set on authentic strangers alone and then kept; a match rate above its FMR is a "
    "sign of a link.",
    "Ten-fold accuracy": "The share of pairs judged rightly, the threshold chosen on nine tenths and tested on the "
    "last, ten times; chance is 50 %.",
    "ROC, DET": "All thresholds in one curve: the matches gained, or missed, for the false ones accepted.",
    "Fréchet distance": "The distance between two sets of pictures, taken as normal distributions in a network's "
    "features; 0 where these agree. Only distances in features of one network compare.",
    "FTA, failure to acquire": "The share of pictures that cannot be read and so are compared with nothing.",
    "Rank 1, rank 10": "A search names the most alike identities; the share of searches in which the right one is the "
    "first, or among the first ten.",
    "FPIR, FNIR": "Of searches for someone who is not enrolled, the share that name somebody; of searches for someone "
    "who is, the share that do not name them first and above the threshold.",
    "TPR at FPR": "The share of what an attack should find that it finds, where it is wrong about this share of the "
    "rest.",
    "Epsilon": "How far differential privacy lets one person's presence change what may come out: by a factor of e to "
    "that power. An attack that works shows that it must be at least so large; one that fails shows nothing.",
    "Rule of 30, rule of 3": "To be within 30 % of a rate (at 90 %), 30 errors must have been seen; what was never "
    "seen in n trials may still have a rate of 3/n.",
    "Member, held-out identity": "A member's pictures trained the generator; a held-out identity's did not. What tells "
    "them apart is leakage.",
}


def finite(value: object) -> bool:
    """Whether a value read from JSON is a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent(value: object, digits: int = 1) -> str:
    """0.934 -> "93.4 %" (with a no-break space), more digits where it is small; a dash for what is no number."""
    if not finite(value):
        return DASH
    shown = 100 * value
    if 0 < abs(shown) < 1:
        digits = max(digits, 1 - math.floor(math.log10(abs(shown))))
    return f"{shown:.{min(digits, 4)}f}{UNIT}"


def interval(ends: object, shown: Callable[[object], str]) -> str:
    """[0.06, 0.09] -> "6.0 – 9.0 %"; nothing for what is no interval.

    Args:
        ends: the two ends, or anything else.
        shown: writes one end.
    """
    if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(map(finite, ends)):
        return ""
    low, high = map(shown, ends)
    return f"{low.removesuffix(UNIT)} – {high}"


def decimal(value: object, digits: int = 3) -> str:
    """A plain number; a dash for what is no number."""
    return f"{value:.{digits}f}" if finite(value) else DASH


def count(value: object) -> str:
    """1280 -> "1,280"."""
    return f"{int(value):,}" if finite(value) else DASH


def plain(value: object) -> str:
    """A number of any size: 213.3 -> "213", 4.78 -> "4.8", 20.0 -> "20"."""
    if not finite(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"


def links(value: object) -> str:
    """20.0 -> "20 links", 1 -> "1 link"."""
    return f"{plain(value)} link{'s' if value != 1 else ''}"


def plural(number: object, word: str) -> str:
    """2, "picture" -> "2 pictures"."""
    return f"{count(number)} {word}{'s' if number != 1 else ''}"


def ratio(value: object) -> str:
    """116.2 -> "116 ×", 1.31 -> "1.3 ×"."""
    if not finite(value):
        return DASH
    return f"{value:,.0f}\N{NO-BREAK SPACE}×" if value >= 9.95 else f"{value:.1f}\N{NO-BREAK SPACE}×"


def duration(seconds: object) -> str:
    """Seconds as "4 min 11 s"."""
    if not finite(seconds):
        return DASH
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def p_value(value: object) -> str:
    """A p-value: 0.0401 -> "0.040", "< 0.001" where it is smaller than is worth telling."""
    if not finite(value):
        return DASH
    return f"{value:.3f}" if value >= 0.001 else f"<{NARROW}0.001"


def one_in(rate: float) -> str:
    """0.001 -> "1 in 1,000"."""
    return f"1 in {round(1 / rate):,}"
