"""Stage doctor: why a network scores badly on a benchmark."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.core.progress import Progress
from sface_jax.data.pairs import Pairs
from sface_jax.recognition.network import Network, OpenNetwork, Preprocessing, load
from sface_jax.verification import diagnosis, networks, overrides, protocol
from sface_jax.verification.benchmarks import is_templates, open_benchmark
from sface_jax.verification.diagnosis import Diagnosis, Trial, Way
from sface_jax.verification.embed import FLIPS, features, fuse
from sface_jax.verification.overrides import ORDERS, Normalisation

TRIED = ("arcface", "imagenet", "unit", "raw", "caffe", "vggface2")
"""The normalisations that are tried; the others are too much like one of these for accuracy to tell."""

ROUNDS = ((32, 12), (128, 3))
"""Successive halving: (pairs on which all that is left is tried, how many of the best go on), without mirror images."""

_SHOWN = 8


def run(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load) -> dict[str, Any]:
    """Finds out whether a network is given pictures as it wants them, and writes what it found.

    Tries both orders of channels, the usual normalisations, and several crops, all with all: first on a few pairs, the
    best of them on more, and the finalists and what is declared on all drawn pairs, there with all of `FLIPS`. Ranks by
    `diagnosis.decidability`, decides by `diagnosis.diagnose`. `workdir/doctor/<network>/<benchmark>.json` has the
    figures of every way, the advice and the sentence, which is also the last line of the log.

    Keys of the config: `network` (a name under `workdir/recognition`, or a path); `benchmark`, `root` (see
    `benchmarks.open_benchmark`); `pairs` to draw, `seed`; what is declared: `preprocessing` (see `overrides.override`),
    `crop`, `flip`; `crops` to try; `folds`, `batch_size`.

    Returns:
        {"verdict", "sentence", "advice", "declared", "advised"}, the last two with their figures.

    Raises:
        UserError: a key is out of range, the network or the benchmark is not there, or cannot be read.
    """
    workdir = epath.Path(workdir)
    _check(config)
    ((name, own),) = networks.load_all(
        networks.find((config.network,) if config.network else (), workdir, "network"), "network", open_network
    ).items()
    network = overrides.override(own, config.preprocessing)
    known = {word: overrides.NORMALISATIONS[word] for word in TRIED}
    for colours in (overrides.normalisation(n.preprocessing) for n in (own, network)):
        known.setdefault(overrides.name(colours), colours)
    by_itself, declared = (_way(n.preprocessing, config) for n in (own, network))
    crops = sorted({*map(float, config.crops), declared.crop}, reverse=True)

    sample, pictures, benchmark, digest = _pictures(config, workdir, network.preprocessing.size, crops)
    eye = _Eye(network, pictures, known, config.batch_size)
    looks = [Way(*look, "none") for look in itertools.product(ORDERS, known, crops)]
    trials: dict[Way, Trial] = {}
    counts: dict[Way, int] = {}

    def attempt(looks: Iterable[Way], flips: tuple[str, ...], pairs: int) -> dict[Way, Trial]:
        looks, part = list(looks), sample.part(max(pairs, 2 * config.folds))
        shown = Progress(f"{name} on {benchmark}, {len(part)} pairs", len(looks), unit="ways")
        found = {}
        for number, look in enumerate(looks, start=1):
            views = eye.look(look, int(max(part.first.max(), part.second.max())) + 1, mirror=flips != ("none",))
            for flip in flips:
                found[look._replace(flip=flip)] = _try(views, flip, part, config.folds)
            best = max(found.values(), key=lambda trial: trial.d_prime)
            shown.update(number, best=f"{100 * best.accuracy:.1f} %")
        shown.close()
        trials.update(found)
        counts.update(dict.fromkeys(found, len(part)))
        return found

    left = looks
    for pairs, keep in ROUNDS:
        if pairs < len(sample) and keep < len(left):
            found = attempt(left, ("none",), pairs)
            ranked = sorted(found, key=lambda way: -found[way].d_prime)
            # what lies between the best and the declared way tells which of the changes are needed
            needed = diagnosis.between(declared._replace(flip="none"), ranked[0])
            left = dict.fromkeys([*ranked[:keep], *needed])
    final = attempt(left, FLIPS, len(sample))
    same = sample.part(len(sample)).same
    found = diagnosis.diagnose(final, same, declared, by_itself, tried=len(looks))
    document = {
        "network": name,
        "benchmark": benchmark,
        "sha256": digest,
        "pairs": len(sample),
        "ways": len(looks),
        "normalisations": {word: colours._asdict() for word, colours in known.items()},
        "advice": diagnosis.flags(declared, found.advised, by_itself),
        **_told(found, declared, final),
        "tried": [
            _figures(way, trial) | {"pairs": counts[way]}
            for way, trial in sorted(trials.items(), key=lambda item: (-counts[item[0]], -item[1].d_prime))
        ],
    }
    if mesh.is_lead():
        files.write_json(workdir / "doctor" / name / f"{benchmark}.json", document)
    for line in (*_table(final, declared), found.sentence):
        logging.info("%s", line)
    return {key: document[key] for key in ("verdict", "sentence", "advice", "declared", "advised")}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Pairs drawn of a benchmark, a mated and a non-mated one in turn, any even number of the first being a sample.

    Attributes:
        first: position of each pair's first picture; pictures are numbered in the order in which pairs need them.
        second: position of its second picture.
        same: whether it is mated.
        place: rank of each pair in the order of the benchmark, mated and non-mated in turn.
    """

    first: Int[np.ndarray, " p"]
    second: Int[np.ndarray, " p"]
    same: Bool[np.ndarray, " p"]
    place: Int[np.ndarray, " p"]

    def __len__(self) -> int:
        return len(self.same)

    def part(self, pairs: int) -> Sample:
        """The first so many pairs, in the order of the benchmark, whose folds have different people in them."""
        chosen = np.argsort(self.place[:pairs])
        return Sample(self.first[chosen], self.second[chosen], self.same[chosen], self.place[chosen])


def draw(pairs: Pairs, count: int, seed: int) -> tuple[Sample, Int[np.ndarray, " n"]]:
    """Draws pairs, half of them mated, spread evenly over the benchmark.

    Args:
        pairs: of the benchmark.
        count: how many to draw; where there are fewer of a kind, as many of both as there are.
        seed: chooses them.

    Returns:
        The sample, and the positions in the benchmark of the pictures it needs, as it numbers them.
    """
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(pairs.same), np.flatnonzero(~pairs.same)]
    half = min(count // 2, *map(len, kinds))
    # one of each of as many equal stretches
    spread = [[rng.choice(stretch) for stretch in np.array_split(kind, half)] for kind in kinds]
    order = rng.permutation(half)
    chosen = np.stack(spread, axis=1)[order].reshape(-1)  # [2 half], mated and non-mated in turn
    place = (2 * order[:, None] + [0, 1]).reshape(-1)
    ends = np.stack([pairs.first[chosen], pairs.second[chosen]], axis=1)
    used = np.array(list(dict.fromkeys(ends.reshape(-1).tolist())), np.int64)
    number = np.zeros(used.max() + 1, np.int64)
    number[used] = np.arange(len(used))
    return Sample(number[ends[:, 0]], number[ends[:, 1]], pairs.same[chosen], place), used


class AnyColours(nn.Module):
    """A network before which the channels are put in order and normalised, by numbers that are variables.

    So it is compiled once for all preprocessings. Its pictures are RGB in [0, 1].
    """

    network: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"], train: bool = False) -> Float[Array, "n d"]:
        """Embeds pictures as the network does that has this preprocessing."""
        order, mean, std = (self.variable("colours", key, lambda: None).value for key in ("order", "mean", "std"))
        return self.network((x[..., order] - mean) / std, train=train)


class _Eye:
    """Looks at pictures in many ways; at each once in each way, all with one compiled function."""

    def __init__(
        self,
        network: Network,
        pictures: dict[float, UInt8[np.ndarray, "n s s 3"]],
        known: dict[str, Normalisation],
        batch_size: int,
    ):
        self.network, self.pictures, self.known = network, pictures, known
        self.batch_size = -(-batch_size // jax.device_count()) * jax.device_count()  # as `features` rounds it
        self.seen: dict[tuple[Way, bool], Float32[np.ndarray, "k d"]] = {}

    def look(self, way: Way, count: int, mirror: bool) -> Float32[np.ndarray, "n v d"]:
        """Embeddings of the first `count` pictures, and of their mirror images: at least of so many."""
        views = [self._view(way, count, mirrored) for mirrored in ((False, True) if mirror else (False,))]
        return np.stack([view[:count] for view in views], axis=1)

    def _view(self, way: Way, count: int, mirrored: bool) -> Float32[np.ndarray, "k d"]:
        key, images = (way, mirrored), self.pictures[way.crop]
        done = len(self.seen.get(key, ()))
        if done < count:
            # what a batch has room for is looked at now, for later rounds
            stop = min(done + -(-(count - done) // self.batch_size) * self.batch_size, len(images))
            fresh = features(
                self._network(way),
                images[:, :, ::-1] if mirrored else images,
                np.arange(done, stop),
                batch_size=self.batch_size,
                mirror=False,
                whole_batches=True,
            )[:, 0]
            self.seen[key] = np.concatenate([self.seen[key], fresh]) if done else fresh
        return self.seen[key]

    def _network(self, way: Way) -> Network:
        preprocessing = overrides.prepared(self.network.preprocessing, self.known[way.normalisation], way.order)
        colours = {
            "order": np.arange(3)[:: -1 if way.order == "bgr" else 1].copy(),
            "mean": np.float32(preprocessing.mean),
            "std": np.float32(preprocessing.std),
        }
        within = {kind: {"network": tree} for kind, tree in self.network.variables.items()}
        plain = Preprocessing(preprocessing.size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return Network(AnyColours(self.network.module), within | {"colours": colours}, plain)


def _pictures(
    config: ConfigDict, workdir: epath.Path, size: int, crops: list[float]
) -> tuple[Sample, dict[float, UInt8[np.ndarray, "n s s 3"]], str, str]:
    """The drawn pairs, their pictures at each crop, the benchmark's name and hash."""
    opened = open_benchmark(config.benchmark, workdir, size, config.folds, config.root, uneven_folds=True)
    sample, used = draw(opened.pairs, config.pairs, config.seed)
    if len(sample) < 2 * config.folds:
        raise UserError(f"{opened.name} has {len(sample)} pairs for half to be mated: too few for {config.folds} folds")
    if len(sample) < config.pairs // 2 * 2:
        logging.warning("%s has pairs for half to be mated: %d, not %d", opened.name, len(sample), config.pairs)
    pictures = {crop: opened.at(size, crop).images.images(used) for crop in crops}
    return sample, pictures, opened.name, opened.digest


def _try(views: Float32[np.ndarray, "n v d"], flip: str, part: Sample, folds: int) -> Trial:
    rows = fuse(views, flip)
    finite = bool(np.isfinite(rows).all())
    if not finite:
        rows = np.zeros_like(rows)
    first, second = rows[part.first], rows[part.second]
    compared = protocol.compare(first, second, part.same, folds, uneven=True)
    accuracy = compared.exact_accuracy()
    right = (compared.distance < accuracy.thresholds[compared.fold]) == part.same
    scores = np.sum(first * second, axis=1)
    return Trial(scores, right, diagnosis.decidability(scores, part.same), accuracy.mean, finite)


def _way(preprocessing: Preprocessing, config: ConfigDict) -> Way:
    colours = overrides.name(overrides.normalisation(preprocessing))
    return Way(preprocessing.channel_order, colours, float(config.crop), config.flip)


def _told(found: Diagnosis, declared: Way, trials: dict[Way, Trial]) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "sentence": found.sentence,
        "declared": _figures(declared, trials[declared]),
        "advised": _figures(found.advised, trials[found.advised]),
        "best": _figures(found.best, trials[found.best]),
        "best_less_declared": {figure: list(interval) for figure, interval in found.gain.items()},
        "interval": diagnosis.LEVEL,
    }


def _figures(way: Way, trial: Trial) -> dict[str, Any]:
    figures = {"d_prime": trial.d_prime, "accuracy": trial.accuracy}
    return way._asdict() | figures | ({} if trial.finite else {"finite": False})


def _table(trials: dict[Way, Trial], declared: Way) -> list[str]:
    """The best ways and the declared one, as a person reads it."""
    ranked = sorted(trials, key=lambda way: -trials[way].d_prime)
    shown = ranked[:_SHOWN] + [declared] * (declared not in ranked[:_SHOWN])
    labels = [diagnosis.in_full(way) + " (declared)" * (way == declared) for way in shown]
    width = max(map(len, labels))
    lines = [f"{'':<{width}}  accuracy     d'"]
    for way, label in zip(shown, labels, strict=True):
        lines.append(f"{label:<{width}}  {100 * trials[way].accuracy:6.1f} %  {trials[way].d_prime:5.2f}")
    return lines


def _check(config: ConfigDict) -> None:
    if not config.benchmark:
        raise UserError('no benchmark is named: set --config.benchmark to "heldout" or "name=pairs_file:folder"')
    if is_templates(config.benchmark):
        raise UserError(f"config.benchmark is {config.benchmark!r}, of templates: name one of pairs, such as LFW's")
    if config.flip not in FLIPS:
        raise UserError(f"config.flip is {config.flip!r}: name one of {', '.join(FLIPS)}")
    for key, crops in (("crop", (config.crop,)), ("crops", config.crops)):
        if not all(isinstance(crop, int | float) and 0 < crop <= 4 for crop in crops):
            raise UserError(f"config.{key} is {config[key]}: the share of the side to keep lies above 0 and up to 4")
    if config.pairs < 2 * config.folds:
        raise UserError(f"config.pairs={config.pairs} is too few for {config.folds} folds: draw 500 or so")
