"""Stage overlap: which identities of a set are also in another one, by name, by equal pictures and by a recogniser."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.privacy.inputs.entries import parse
from sface_jax.privacy.overlap import page
from sface_jax.privacy.overlap.people import People, means, open_people
from sface_jax.privacy.overlap.same_people import Shared, Strangers, Threshold, compare, freeze
from sface_jax.recognition.network import OpenNetwork, load
from sface_jax.verification import networks


def run(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load) -> dict[str, Any]:
    """Compares every two of `config.sets`, and writes `workdir/overlap`; see `configs/overlap.py` for the keys.

    `overlap.json` has all that was found, `overlap.html` shows it, `exclude.txt` lists the identities of the first set
    that seem to be in another one.

    Returns:
        The number of identities to leave out of the first set, and a line for each two sets.

    Raises:
        UserError: fewer than two sets are named, two are one or have one name, one cannot be opened, or there is no
            such network.
    """
    workdir = epath.Path(workdir)
    if len(config.sets) < 2:
        raise UserError("config.sets must name two sets or more, such as \"('train=DIR', 'lfw=pairs.txt:FOLDER')\"")
    if not 0 <= config.fmr < 1:
        raise UserError(f"config.fmr={config.fmr}: set it below 1, to 1e-5 for instance")
    entries = [parse(entry, "sets") for entry in config.sets]
    for entry in entries:
        if sum(other.place == entry.place for other in entries) > 1:
            raise UserError(f"config.sets names {entry.path} twice: all of it would be in itself")
        if sum(other.name == entry.name for other in entries) > 1:
            raise UserError(
                f"config.sets has two sets called {entry.name}: write another name and = before one of them"
            )
    matchers = networks.find((config.matcher,), workdir, "matcher") if config.matcher else {}
    network = next(iter(networks.load_all(matchers, "matcher", open_network).values()), None)
    sets = [open_people(entry, config.pictures) for entry in entries]

    seen, threshold, strangers = [], None, {}
    if network:
        seen = [means(people, network, batch_size=config.batch_size, flip=config.flip) for people in sets]
        threshold, strangers = freeze(sets, seen, config.fmr)
        logging.log(logging.INFO if threshold.value is not None else logging.WARNING, "%s", threshold.words)
    compared = []
    for i, j in itertools.combinations(range(len(sets)), 2):
        compared.append(compare(sets[i], sets[j], (seen[i], seen[j]) if seen else None, threshold))
        logging.info("%s", compared[-1].summary)
    excluded = sorted({f.places[0] for shared in compared if shared.first is sets[0] for f in shared.found if f.counts})
    if mesh.is_lead():
        folder = workdir / "overlap"
        document = _document(config, sets, compared, threshold, strangers, len(excluded))
        files.write_json(folder / "overlap.json", document)
        files.write_text(folder / "exclude.txt", "".join(f"{sets[0].names[place]}\n" for place in excluded))
        text = page.render(sets, compared, threshold.words if threshold else "", strangers, config.shown)
        files.write_text(folder / "overlap.html", text)
    logging.info(
        "%d of %d identities of %s seem to be in another set: %s lists them for --config.exclude of stage prepare, and "
        "overlap.html beside it shows them",
        *(len(excluded), len(sets[0]), sets[0].name, workdir / "overlap" / "exclude.txt"),
    )
    return {"exclude": len(excluded), "summaries": [shared.summary for shared in compared]}


def _document(
    config: ConfigDict,
    sets: list[People],
    compared: list[Shared],
    threshold: Threshold | None,
    strangers: dict[str, list[Strangers]],
    excluded: int,
) -> dict[str, Any]:
    frozen = None
    if threshold:
        frozen = {"matcher": str(config.matcher), "fmr_asked": config.fmr, **dataclasses.asdict(threshold)}
        frozen |= {"fmr": threshold.fmr, "fmr_at_most": threshold.fmr_at_most, "words": threshold.words}
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
                "identities_unreadable": people.lost,
            }
            for people in sets
        },
        "threshold": frozen,
        "pairs": [_pair(shared) for shared in compared],
        "exclude": excluded,
    }


def _pair(shared: Shared) -> dict[str, Any]:
    counted = [f for f in shared.found if f.counts]
    return {
        "first": shared.first.name,
        "second": shared.second.name,
        "summary": shared.summary,
        "identities_of_first": len({f.places[0] for f in counted}),
        "identities_of_second": len({f.places[1] for f in counted}),
        "by_name": len(shared.by_name),
        "by_name_not_confirmed": sum(not f.confirmed for f in shared.by_name) if shared.looked else None,
        "by_placeholder": len(shared.by_placeholder),
        "by_placeholder_borne_out": sum(f.seen for f in shared.by_placeholder),
        "equal_pictures": shared.pictures,
        "equal_pictures_passed_over": shared.passed_over,
        "confirmed_but_not_listed": shared.unlisted,
        "found": [
            {k: v for k, v in dataclasses.asdict(f).items() if k != "places"} | {"counts": f.counts}
            for f in shared.found
        ],
    }
