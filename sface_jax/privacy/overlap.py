"""Stage overlap: which identities of a set are also in another one, by name, by equal pictures and by a recogniser."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.privacy import overlap_page, same_names
from sface_jax.privacy.people import People, means, open_people
from sface_jax.privacy.same_people import Found, Strangers, Threshold, compare, freeze
from sface_jax.recognition.network import OpenNetwork, load
from sface_jax.verification import networks


def run(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load) -> dict[str, Any]:
    """Compares every two of `config.sets`, and writes `workdir/overlap`; see `configs/overlap.py` for the keys.

    `overlap.json` has all that was found, `overlap.html` shows it, `exclude.txt` lists the identities of the first set
    that are in another one.

    Returns:
        The number of identities to leave out of the first set, and a line for each two sets.

    Raises:
        UserError: fewer than two sets are named, two have one name, one cannot be opened, or there is no such network.
    """
    workdir = epath.Path(workdir)
    if len(config.sets) < 2:
        raise UserError("config.sets must name two sets or more, such as \"('train=DIR', 'lfw=pairs.txt:FOLDER')\"")
    if not 0 <= config.fmr < 1:
        raise UserError(f"config.fmr={config.fmr}: set it below 1, to 1e-5 for instance")
    found = networks.find((config.matcher,), workdir, "matcher") if config.matcher else {}
    network = next(iter(networks.load_all(found, "matcher", open_network).values()), None)
    sets = [open_people(entry, "sets", config.pictures) for entry in config.sets]
    if twice := [name for name, n in collections.Counter(people.name for people in sets).items() if n > 1]:
        raise UserError(f"config.sets has two sets called {twice[0]}: write another name and = before one of them")

    seen, threshold, strangers = None, None, {}
    if network:
        seen = [means(people, network, batch_size=config.batch_size, flip=config.flip) for people in sets]
        threshold, strangers = freeze(sets, seen, config.fmr)
        logging.info("%s", threshold.words)
    compared = []
    for i, j in itertools.combinations(range(len(sets)), 2):
        both = (seen[i], seen[j]) if seen else None
        found = compare(sets[i], sets[j], both, threshold)
        compared.append((sets[i], sets[j], found, summary(sets[i], sets[j], found, threshold)))
        logging.info("%s", compared[-1][-1])
    excluded = sorted({f.places[0] for first, _, found, _ in compared if first is sets[0] for f in found if f.counts})
    if mesh.is_lead():
        folder = workdir / "overlap"
        files.write_json(
            folder / "overlap.json", _document(config, sets, compared, threshold, strangers, len(excluded))
        )
        files.write_text(folder / "exclude.txt", "".join(f"{sets[0].names[place]}\n" for place in excluded))
        page = overlap_page.render(sets, compared, threshold.words if threshold else "", strangers, config.shown)
        files.write_text(folder / "overlap.html", page)
    logging.info(
        "%d of %d identities of %s are in another set: %s lists them for --config.exclude of stage prepare, and "
        "overlap.html beside it shows them",
        *(len(excluded), len(sets[0]), sets[0].name, workdir / "overlap" / "exclude.txt"),
    )
    return {"exclude": len(excluded), "summaries": [line for *_, line in compared]}


def summary(first: People, second: People, found: list[Found], threshold: Threshold | None) -> str:
    """What two sets have in common, in a sentence."""
    named = [f for f in found if f.by_name]
    parts = []
    if not (first.named and second.named):
        parts.append("names are not known in both")
    elif named:
        written = sum(f.by_name == same_names.NORMALISED for f in named)
        numbers = sum(f.numbers for f in named)
        notes = [f"{written:,} written differently"] * bool(written)
        notes += [f"{numbers:,} by numbers, which say little"] * bool(numbers)
        told = f" ({'; '.join(notes)})" if notes else ""
        parts.append(f"{_count(len(named), 'identity', 'identities')} by name{told}")
    else:
        parts.append("no identity by name")
    if threshold:
        if named:
            parts.append(f"{sum(f.confirmed for f in named):,} of them confirmed by pictures' embeddings")
        more = sum(f.confirmed and not f.by_name for f in found)
        chance = threshold.fmr * len(first) * len(second)
        expected = f"{'about' if threshold.false_matches else 'below'} {chance:.2g} expected by chance"
        parts.append(f"{more or 'none'} {'more ' if named else ''}found by the recogniser ({expected})")
    equal = sum(f.pictures for f in found)
    shared = _count(equal, "equal picture", "equal pictures") if equal else "no equal pictures"
    parts.append(shared + ("" if first.whole and second.whole else " among those looked at"))
    return f"{first.name} and {second.name}: {', '.join(parts)}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _document(
    config: ConfigDict,
    sets: list[People],
    compared: list[tuple[People, People, list[Found], str]],
    threshold: Threshold | None,
    strangers: dict[str, list[Strangers]],
    excluded: int,
) -> dict[str, Any]:
    frozen = None
    if threshold:
        frozen = {"matcher": str(config.matcher), "fmr_asked": config.fmr, "fmr": threshold.fmr}
        frozen |= dataclasses.asdict(threshold) | {"words": threshold.words}
        frozen["most_alike_within"] = {
            people.name: [
                {"first": people.names[pair.first], "second": people.names[pair.second], "similarity": pair.similarity}
                for pair in strangers.get(people.name, [])
            ]
            for people in sets
        }
    return {
        "sets": {
            people.name: {
                "identities": len(people),
                "pictures_looked_at": len(people.positions),
                "pictures": len(people.source.labels),
                "unreadable": people.unreadable,
            }
            for people in sets
        },
        "threshold": frozen,
        "pairs": [
            {
                "first": first.name,
                "second": second.name,
                "summary": line,
                "identities_of_first": len({f.places[0] for f in found if f.counts}),
                "identities_of_second": len({f.places[1] for f in found if f.counts}),
                "found": [{k: v for k, v in dataclasses.asdict(f).items() if k != "places"} for f in found],
            }
            for first, second, found, line in compared
        ],
        "exclude": excluded,
    }
