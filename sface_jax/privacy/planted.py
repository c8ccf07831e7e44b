"""Stage planted: what an audit finds of leaks that were planted, by kind, share and rate, over many random splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Float32, Int
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.data import formats
from sface_jax.privacy import controls, metrics, planting
from sface_jax.privacy.attacks import copies, strangers
from sface_jax.privacy.attacks.screening import SIGNIFICANT, Screening, screen
from sface_jax.privacy.controls import Plants
from sface_jax.privacy.inputs.entries import TRAIN, parse, refuse_equal
from sface_jax.privacy.inputs.pixels import Resized, look
from sface_jax.privacy.relations import Faces
from sface_jax.recognition.network import Network, OpenNetwork, load
from sface_jax.verification import curves, networks
from sface_jax.verification.embed import embed

_READ = 1 << 10  # pictures edited at a time


class _Set(NamedTuple):
    """Embedded pictures and what copies are found by; `edited` are embeddings of edited ones, of those at `rows`."""

    faces: Faces
    looks: copies.Looks
    rows: Int[np.ndarray, " e"]
    edited: Float32[np.ndarray, "e d"]
    copied: Bool[np.ndarray, " e"]


def run(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load) -> dict[str, Any]:
    """Plants leaks in a set that has none and writes `planted.json` and `planted.md`; see `configs/planted.py`.

    Every picture is embedded once, so that splits of the people, by seed, cost a search each.

    Returns:
        How many sets without leaks were noticed, of how many.

    Raises:
        UserError: a set or the matcher is missing, or there are too few people to be split.
    """
    if not (0 < config.heldout < 1 and 0 < config.unseen < 1):
        raise UserError("config.heldout and config.unseen are shares: set them between 0 and 1")
    workdir, options = epath.Path(workdir), {"batch_size": config.batch_size, "flip": config.flip}
    found = networks.find((config.matcher,), workdir, "matcher")
    refuse_equal((key, parse(one, key)) for key in ("authentic", "synthetic") for one in config[key])
    network = next(iter(networks.load_all(found, "matcher", open_network).values()))
    left_out = set(epath.Path(config.exclude).read_text().splitlines()) if config.exclude else set()
    authentic = _embedded(network, config.authentic, "authentic", set(), config.edited, config.seed, options)
    synthetic = _embedded(network, config.synthetic, "synthetic", left_out, 0, config.seed, options)
    if authentic.faces.identities < 4:
        raise UserError("config.authentic has fewer than 4 people: they cannot be split into members and others")
    tests = [_test(config, authentic, synthetic.faces, config.seed + seed) for seed in range(config.seeds)]
    study = _study(config, tests, authentic, synthetic)
    if mesh.is_lead():
        files.write_json(epath.Path(config.output) / "planted.json", study)
        files.write_text(epath.Path(config.output) / "planted.md", table(study))
    logging.info("%s", table(study))
    return {"noticed_without": study["none"]["noticed"], "seeds": config.seeds}


def _embedded(
    network: Network,
    entries: Sequence[str],
    key: str,
    left_out: set[str],
    edited: int,
    seed: int,
    options: dict[str, Any],
) -> _Set:
    """Embeds the pictures of some sets as one, their identities numbered on, and `edited` of them edited."""
    rows, looks, labels, picked, images, alike, count = [], [], [], [], [], [], 0
    if not entries:
        raise UserError(f"config.{key} is empty: set it to pictures, such as \"('DIR/authentic:train',)\"")
    sources = [formats.open_source(entry.path, entry.part or TRAIN) for entry in (parse(one, key) for one in entries)]
    total = sum(len(source.labels) for source in sources)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:edited])
    for source, start in zip(sources, np.cumsum([0, *(len(source.labels) for source in sources)]), strict=False):
        shown, own = Resized(source, network.preprocessing.size), np.asarray(source.labels)
        out = np.array([name in left_out for name in source.class_names], bool)
        kept = np.flatnonzero(~out[own])
        rows.append(embed(network, shown, kept, progress=f"embedding {key}", **options))
        looks.append(copies.look(shown, kept, look(key, source, kept).hashes))
        labels.append(own[kept].astype(np.int64) + count)
        count += len(source.class_names)
        positions = chosen[(chosen >= start) & (chosen < start + len(own))] - start
        for first in range(0, len(positions), _READ):
            part = positions[first : first + _READ]
            originals = shown.images(part)
            changed = planting.edited(originals, seed + int(start) + first)
            images.append(embed(network, changed, **options))
            alike.append(copies.same(copies.thumbnails(changed), copies.thumbnails(originals)))
        picked.append(positions + start)
    faces = Faces(np.concatenate(rows), np.concatenate(labels))
    none = np.zeros((0, faces.embeddings.shape[1]), np.float32)
    copied = np.concatenate(alike) if alike else np.zeros(0, bool)
    looked = copies.Looks(*(np.concatenate(column) for column in zip(*looks, strict=True)))
    return _Set(faces, looked, np.concatenate(picked), np.concatenate([none, *images]), copied)


def _test(config: ConfigDict, authentic: _Set, synthetic: Faces, seed: int) -> dict[str, Any]:
    """One split of the people: the screening without leaks, and with leaks of every kind and share."""
    rng, labels = np.random.default_rng(seed), authentic.faces.labels
    people = rng.permutation(np.unique(labels))
    others = people[: max(round(config.heldout * len(people)), 2)]
    held = np.isin(labels, others)
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    first, size = np.searchsorted(labels[ordered], labels[ordered]), np.bincount(labels)[labels[ordered]]
    unseen = np.zeros(len(labels), bool)
    unseen[ordered] = np.arange(len(ordered)) - first < np.maximum(1, np.floor(config.unseen * size)) * (size > 1)
    members, heldout = (_part(authentic.faces, np.flatnonzero(rows)) for rows in (~held & ~unseen, held & ~unseen))
    found = screen(synthetic, members, heldout, rates=tuple(config.rates), seed=seed)
    made = _plants(config, authentic, members, heldout, ~held & ~unseen, ~held & unseen, rng, seed)
    return {"none": _without_leaks(found), "kinds": {kind: _found(config, found, one) for kind, one in made.items()}}


def _plants(
    config: ConfigDict,
    authentic: _Set,
    members: Faces,
    heldout: Faces,
    inside: Bool[np.ndarray, " n"],
    unseen: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
    seed: int,
) -> dict[str, Plants]:
    exact = rng.permutation(np.flatnonzero(inside))[: config.planted]
    edited = rng.permutation(np.flatnonzero(inside[authentic.rows]))[: config.planted]
    other = rng.permutation(np.flatnonzero(unseen))[: config.planted]
    faces, galleries = authentic.faces, strangers.galleries(members, heldout, seed)
    sought = {
        planting.EXACT: (faces.embeddings[exact], faces.labels[exact], np.ones(len(exact), bool)),
        planting.EDITED: (authentic.edited[edited], faces.labels[authentic.rows[edited]], authentic.copied[edited]),
        planting.OTHER: (faces.embeddings[other], faces.labels[other], None),
    }
    return {
        kind: controls.seek(rows, people, galleries, copied)
        for kind, (rows, people, copied) in sought.items()
        if len(rows)
    }


def _without_leaks(found: Screening) -> dict[str, Any]:
    figures = found.figures(0)
    inside = {
        key: rate["interval"][0] <= rate["links"] <= rate["interval"][1]
        for key, rate in figures["rates"].items()
        if rate["interval"]
    }
    return {"noticed": figures["noticed"], "p_values": found.p_values(), "inside": inside, "rates": figures["rates"]}


def _found(config: ConfigDict, found: Screening, made: Plants) -> dict[str, Any]:
    return {
        "planted": len(made.people),
        "tpr": {key: float(made.found(at.value).mean()) for key, at in found.thresholds.items()},
        "rank1": float(made.first().mean()),
        "copies": None if made.copies is None else float(made.copies.mean()),
        "shares": {
            curves.rate_name(share): controls.replaced(found, made, share, seed=found.seed) for share in config.shares
        },
    }


def _study(config: ConfigDict, tests: list[dict[str, Any]], authentic: _Set, synthetic: _Set) -> dict[str, Any]:
    """Means over the splits."""
    none, rates = [test["none"] for test in tests], list(tests[0]["none"]["rates"])
    kinds = {}
    for kind in tests[0]["kinds"]:
        every = [test["kinds"][kind] for test in tests]
        planted = float(np.mean([one["planted"] for one in every]))
        tpr = {key: float(np.mean([one["tpr"][key] for one in every])) for key in rates}
        shares = {}
        for key in every[0]["shares"]:
            some = [one["shares"][key] for one in every]
            shares[key] = {
                "pictures": some[0]["pictures"],
                "share": some[0]["share"],
                "found": {rate: float(np.mean([one["found"][rate] for one in some])) for rate in rates},
                "false_alarms": {rate: float(np.mean([one["false_alarms"][rate] for one in some])) for rate in rates},
                "copies": None if some[0]["copies"] is None else float(np.mean([one["copies"] for one in some])),
                "with_a_copy": None if some[0]["copies"] is None else sum(one["copies"] > 0 for one in some),
                "noticed": sum(one["p_value"] < SIGNIFICANT for one in some),
            }
        kinds[kind] = {
            "planted": planted,
            "rates": {
                # one split's plants are independent, those of all splits are partly the same pictures
                key: {"tpr": mean, "interval": list(metrics.clopper_pearson(mean * planted, planted))}
                for key, mean in tpr.items()
            },
            "rank1": float(np.mean([one["rank1"] for one in every])),
            "copies": None if every[0]["copies"] is None else float(np.mean([one["copies"] for one in every])),
            "shares": shares,
        }
    return {
        "seeds": config.seeds,
        "authentic": {"people": authentic.faces.identities, "pictures": len(authentic.faces)},
        "synthetic": {"pictures": len(synthetic.faces)},
        "heldout": config.heldout,
        "none": {
            "copies": copies.find(synthetic.looks, authentic.looks).counts(),
            "noticed": sum(bool(one["noticed"]) for one in none),
            "tested": {key: sum(key in one["inside"] for one in none) for key in rates},
            "inside": {key: sum(one["inside"].get(key, False) for one in none) for key in rates},
            "links": {key: [one["rates"][key]["links"] for one in none] for key in rates},
            "expected": {key: float(np.mean([one["rates"][key]["expected"] for one in none])) for key in rates},
        },
        "kinds": kinds,
    }


def table(study: dict[str, Any]) -> str:
    """The study as Markdown."""
    none, seeds = study["none"], study["seeds"]
    rates = list(none["inside"])
    lines = [
        f"{study['authentic']['people']:,} people with {study['authentic']['pictures']:,} pictures, "
        f"{100 * study['heldout']:.0f} % of them held out by each of {seeds} seeds; "
        f"{study['synthetic']['pictures']:,} synthetic pictures of other people.",
        "",
        "| nothing planted | " + " | ".join(f"FPR {key}" for key in rates) + " |",
        "|---|" + "---|" * len(rates),
        "| links expected | " + " | ".join(f"{none['expected'][key]:.3g}" for key in rates) + " |",
        "| links found, mean | " + " | ".join(f"{np.mean(none['links'][key]):.3g}" for key in rates) + " |",
        "| within the 95 % interval | "
        + " | ".join(f"{none['inside'][key]} of {none['tested'][key]}" for key in rates)
        + " |",
        "",
        f"Sets without leaks that were noticed at the 5 % level: {none['noticed']} of {seeds}. Synthetic pictures that "
        f"pass for copies: {none['copies']['equal'] + none['copies']['alike']}.",
        "",
        "| kind | planted | " + " | ".join(f"TPR at FPR {key}" for key in rates) + " | rank 1 | found as copies |",
        "|---|---|" + "---|" * len(rates) + "---|---|",
    ]
    for kind, found in study["kinds"].items():
        cells = [_rate(found["rates"][key]["tpr"], found["rates"][key]["interval"]) for key in rates]
        lines.append(
            f"| {kind} | {found['planted']:.0f} | {' | '.join(cells)} | {_percent(found['rank1'])} | "
            f"{_percent(found['copies'])} |"
        )
    lines += [
        "",
        "| kind | share | pictures | "
        + " | ".join(f"found (false alarms) at {key}" for key in rates)
        + " | sets noticed | sets with a copy found |",
        "|---|---|---|" + "---|" * len(rates) + "---|---|",
    ]
    for kind, of_kind in study["kinds"].items():
        for found in of_kind["shares"].values():
            cells = [f"{found['found'][key]:.3g} ({found['false_alarms'][key]:.3g})" for key in rates]
            copied = "not tried" if found["with_a_copy"] is None else f"{found['with_a_copy']} of {seeds}"
            lines.append(
                f"| {kind} | {100 * found['share']:.2g} % | {found['pictures']} | {' | '.join(cells)} | "
                f"{found['noticed']} of {seeds} | {copied} |"
            )
    return "\n".join(lines) + "\n"


def _part(faces: Faces, rows: Int[np.ndarray, " k"]) -> Faces:
    return Faces(faces.embeddings[rows], faces.labels[rows])


def _rate(rate: float, interval: Sequence[float]) -> str:
    return f"{_percent(rate)} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _percent(share: float | None) -> str:
    return "not tried" if share is None else f"{100 * share:.1f} %"
