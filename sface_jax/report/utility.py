"""How useful the synthetic faces are: what the report says about verification accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from markupsafe import Markup

from sface_jax.report import plots, words

MOST_CURVES = 10
"""Of more networks than these only the paper's and the baselines get a ROC curve."""

SET_ASIDE = ("heldout", "verification")  # benchmarks drawn from identities of the authentic dataset


@dataclasses.dataclass(frozen=True)
class Network:
    """One row of a benchmark's table."""

    name: str
    label: str
    trained_on: str
    colour: str
    synthetic: bool
    accuracy: float
    std: float
    tar: float | None
    interval: str


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark: its table and charts."""

    name: str
    label: str
    pairs: int | None
    folds: int | None
    networks: list[Network]
    chart: Markup
    roc: Markup | None

    def find(self, name: str) -> Network | None:
        """The network of that name, if it was measured."""
        return next((network for network in self.networks if network.name == name), None)

    @property
    def held_out(self) -> bool:
        """Whether its identities are those set aside from the authentic dataset."""
        return self.name in SET_ASIDE

    @property
    def best(self) -> Network | None:
        """The most accurate of the networks trained on synthetic pictures."""
        return max(
            (network for network in self.networks if network.synthetic),
            key=lambda network: network.accuracy,
            default=None,
        )

    @property
    def ceiling(self) -> Network | None:
        """The network trained on authentic pictures; where several were, the most accurate of this run's."""
        ours = [network for network in self.networks if network.name in words.SYNTHETIC and not network.synthetic]
        best = max(ours, key=lambda network: network.accuracy, default=None)
        return self.find("authentic") or best or self.find("teacher")


def benchmarks(verification: dict[str, dict[str, Any]], on_authentic: Collection[str] = ()) -> list[Benchmark]:
    """Turns the JSON files of the verify stage (network -> content) into benchmarks with their charts.

    Args:
        verification: network -> content.
        on_authentic: networks that were trained on authentic pictures, whatever their names say.
    """
    names = dict.fromkeys(name for content in verification.values() for name in content.get("benchmarks", {}))
    found = []
    for number, name in enumerate(names):
        measured = {
            network: content["benchmarks"][name]
            for network, content in sorted(verification.items(), key=lambda item: order(item[0]))
            if words.finite(content.get("benchmarks", {}).get(name, {}).get("accuracy"))
        }
        if measured:
            found.append(_benchmark(number, name, measured, on_authentic))
    return found


def order(name: str) -> tuple[int, str]:
    """Sorts networks: those of the paper, others, baselines, the audit's matcher."""
    known = list(words.NETWORKS)
    if name in known:
        return known.index(name), name
    return len(known) + _is_baseline(name) + 2 * (name == "matcher"), name


def _is_baseline(name: str) -> bool:
    return any(word in name.lower() for word in ("pixels", "pca", "baseline"))


def describe(name: str, on_authentic: bool = False) -> tuple[str, str, str]:
    """A network's label, what it was trained on, and its colour's role."""
    if name in words.NETWORKS:
        label, trained_on, colour = words.NETWORKS[name]
        return label, trained_on.replace("synthetic", "authentic") if on_authentic else trained_on, colour
    if name == "matcher":
        return words.MATCHER
    if _is_baseline(name):
        return name.replace("_", " "), "no training: a baseline", "other"
    return name, "", "other"


def _benchmark(number: int, name: str, measured: dict[str, dict[str, Any]], on_authentic: Collection[str]) -> Benchmark:
    networks = []
    for network, values in measured.items():
        shown, trained_on, colour = describe(network, network in on_authentic)
        if "teacher" in measured:
            trained_on = trained_on.removesuffix(", and the teacher")
        std = values.get("std")
        tar = values.get("tar_at_far_1e-3")
        networks.append(
            Network(
                network,
                shown,
                trained_on,
                colour,
                synthetic=network in words.SYNTHETIC and network not in on_authentic,
                accuracy=values["accuracy"],
                std=std if words.finite(std) else 0.0,
                tar=tar if words.finite(tar) else None,
                interval=words.interval(values.get("interval_95", {}).get("accuracy"), words.percent),
            )
        )
    label = "held-out identities" if name in SET_ASIDE else name
    bars = [plots.Bar(n.label, n.accuracy, n.accuracy - n.std, n.accuracy + n.std, n.colour) for n in networks]
    alt = f"Accuracy on {label}: " + ", ".join(f"{n.label} {words.percent(n.accuracy)}" for n in networks)
    first = next(iter(measured.values()))
    return Benchmark(
        name=name,
        label=label,
        pairs=first.get("pairs"),
        folds=first.get("folds"),
        networks=networks,
        chart=plots.accuracy(f"accuracy{number}", bars, alt),
        roc=_roc(number, label, measured),
    )


def _roc(number: int, label: str, measured: dict[str, dict[str, Any]]) -> Markup | None:
    curves, colours = {}, {}
    many = len(measured) > MOST_CURVES
    for network, values in measured.items():
        roc = values.get("roc") or {}
        left_out = network == "matcher" or (many and network not in words.NETWORKS and not _is_baseline(network))
        if not left_out and roc.get("fmr") and roc.get("tmr"):
            shown, _, colour = describe(network)
            curves[shown] = np.array(roc["fmr"], np.float64), np.array(roc["tmr"], np.float64)
            colours[shown] = colour
    if not curves:
        return None
    return plots.roc(f"roc{number}", curves, colours, f"ROC curves on {label} of {', '.join(curves)}")
