"""Stage privacy: how much of the authentic identities a synthetic dataset gives away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.data import cards, formats
from sface_jax.privacy import card, controls, relations, remedy, threats, verdict
from sface_jax.privacy.attacks import copies, linkage, membership, power, screening
from sface_jax.privacy.inputs import given
from sface_jax.privacy.inputs.embedded import embed_sets
from sface_jax.privacy.inputs.entries import parse
from sface_jax.privacy.inputs.sets import Sets, open_sets
from sface_jax.privacy.inputs.sources import HELDOUT, KEYS, MEMBERS, SYNTHETIC, UNSEEN, Pictures, Source
from sface_jax.privacy.relations import Faces
from sface_jax.recognition.network import Network, OpenNetwork, fingerprint, load
from sface_jax.verification import curves, networks
from sface_jax.verification.embed import FLIPS, embed

NOT_KNOWN = (
    "Who trained the generator, and whether links are in excess of chance: of some authentic set it is not known which "
    "pictures show one person, so that pictures cannot be told from people."
)

LOOKED_AT = 112  # pixels: copies are sought among pictures of this size

AUTHENTIC, MADE, CROSS = "authentic_authentic", "synthetic_synthetic", "authentic_synthetic"

WritePage = Callable[[epath.Path, dict[str, Any], Sequence[dict[str, Any]]], None]

_SHOWN = 12  # couples of a flagged picture and the authentic one it is linked with, where they are to be shown


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one matcher found: the figures, and what the remedy needs of them."""

    figures: dict[str, Any]
    screened: screening.Screening
    copied: dict[str, copies.Copies] = dataclasses.field(default_factory=dict)


def run(
    config: ConfigDict,
    workdir: epath.Path,
    open_network: OpenNetwork = load,
    open_discriminator: threats.OpenDiscriminator | None = None,
    write_page: WritePage | None = None,
) -> dict[str, Any]:
    """Audits a synthetic dataset; see `configs/privacy.py` for the keys.

    Writes `audit.json`, the page, the list of pictures to leave out and where it is asked for the dataset without them
    into `config.output`, and the figures into the dataset's card. What was embedded and compared is kept on the way, so
    that a run that was cut off goes on.

    Args:
        config: the config.
        workdir: the work directory.
        open_network: opens matchers and released recognisers.
        open_discriminator: opens the discriminator of `config.generator`; None tries none.
        write_page: writes the page of an audit into a folder; None writes none.

    Returns:
        `level`, `summary` and the headline figures of the primary matcher.

    Raises:
        UserError: a set or a network is missing, a matcher is the teacher, or a key asks for what cannot be.
    """
    workdir = epath.Path(workdir)
    output = epath.Path(config.output)
    _check(config, workdir)
    matchers, sets = _open(config, workdir, open_network)
    sampled = _sampled(config, sets)
    digest = cards.digest_of(parse(config.synthetic, "synthetic").path)
    found_copies = _copies(sets)
    found: dict[str, Finding] = {}
    for name, network in matchers.items():
        options = {"batch_size": config.batch_size, "flip": config.flip}
        faces = embed_sets(output / "embeddings", name, network, sets, **options)
        found[name] = _audit(config, name, network, sets, faces, found_copies, output)
        if name == next(iter(matchers)):
            others = threats.threats(config, workdir, sets, faces, output, open_network, open_discriminator)
            found[name].figures.update(others)
        decided = found[name].figures["verdict"] = verdict.decide(found[name].figures)
        decided["caveats"] += sampled
        logging.info("matcher %s: %s", name, decided["summary"])
    primary, *others = found
    audit = {
        "matcher": primary,
        "matchers": list(found),
        "sets": {name: source.figures for name, source in sets.sources.items()},
        "labels": {"shared": sets.shared, "how": sets.how},
        "notes": sets.notes,
        "synthetic_sha256": digest,
        "procedural": _procedural(config),
        **found[primary].figures,
        "verdict": verdict.worst_of({name: one.figures["verdict"] for name, one in found.items()}),
        "other_matchers": {name: _without_curves(found[name].figures) for name in others},
    }
    audit["remedy"] = _remedy(config, matchers, sets, found, output)
    audit = finite(audit)
    pairs = _pairs(sets, audit["screening"]) if config.show_pairs else []
    _name_pictures_only(audit, sets)
    if mesh.is_lead():
        files.write_json(output / "audit.json", audit)
        card.write(parse(config.synthetic, "synthetic").path, digest, audit)
        if write_page:
            write_page(output, audit, pairs)
        if (output / "matching").exists():
            (output / "matching").rmtree()
    if config.filtered and "impossible" in audit["remedy"]:
        raise UserError(f"{config.filtered} is not written, all else is: {audit['remedy']['impossible']}")
    for finding in audit["verdict"]["findings"]:
        logging.info("%s (%s): %s. %s", finding["name"], finding["threat"], finding["level"], finding["text"])
    return _headline(audit)


def _procedural(config: ConfigDict) -> bool:
    """Whether the faces that the generator learned are known to be a program's, and show no person."""
    manifest = epath.Path(parse(config.authentic, "authentic").path) / cards.MANIFEST
    return manifest.is_file() and files.read_json(manifest).get("procedural") is True


def finite(value: Any) -> Any:
    """The same tree as strict JSON holds it: infinities and NaN become null, NumPy numbers Python's."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _check(config: ConfigDict, workdir: epath.Path) -> None:
    """Refuses at once what would fail after hours."""
    rates = tuple(config.rates)
    if not rates or not all(isinstance(rate, float | int) and 0 < rate < 1 for rate in rates):
        raise UserError(f"config.rates={rates} must be false positive rates between 0 and 1, such as (1e-2, 1e-3)")
    if config.exclude_rate and config.exclude_rate not in rates:
        raise UserError(f"config.exclude_rate={config.exclude_rate:g} must be one of config.rates, or 0 for no list")
    if config.flip not in FLIPS:
        raise UserError(f"config.flip={config.flip!r} is none of {', '.join(FLIPS)}")
    if not config.output:
        raise UserError('config.output is empty: name a folder for the audit, such as "{workdir}/privacy"')
    if config.generator and not epath.Path(config.generator).exists():
        raise UserError(f"there is no folder {config.generator}: set --config.generator to a work directory, or to ''")
    if config.released:
        networks.find(config.released, workdir, "released")
    if config.filtered:
        _check_filtered(config)


def _check_filtered(config: ConfigDict) -> None:
    target = epath.Path(config.filtered)
    if not config.exclude_rate:
        raise UserError("config.filtered needs config.exclude_rate: which pictures are to be left out?")
    if target.exists() and not remedy.is_filtered(target):
        raise UserError(f"{target} is there already: set --config.filtered to a new folder")
    if target.suffix and target.suffix.lower() not in formats.FILES:
        raise UserError(f"{target} is in no format that is written: name a folder, or a file in {formats.FILES}")
    if given.is_given(parse(config.synthetic, "synthetic").path):
        raise UserError("config.filtered needs pictures, and config.synthetic is embeddings")


def _open(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork) -> tuple[dict[str, Network | None], Sets]:
    """The matchers, None for each where all sets are embeddings, and the sets."""
    paths = [parse(config[key], key).path for key in KEYS.values() if config[key]]
    if all(map(given.is_given, paths)):
        if not config.matchers:
            raise UserError("config.matchers is empty: name what made the embeddings")
        return dict.fromkeys(config.matchers), open_sets(config, tuple(config.matchers))
    found = networks.find(config.matchers, workdir, "matchers")
    teacher = networks.where(config.teacher, workdir) if config.teacher else None
    if teacher is not None and files.absolute(teacher) in map(files.absolute, found.values()):
        raise UserError(
            f"matcher {config.teacher} is the teacher of the networks under audit, so blind to what it taught: "
            f"set --config.matchers to networks trained on other identities"
        )
    opened = networks.load_all(found, "matchers", open_network)
    if teacher is not None and teacher.exists():
        taught = fingerprint(open_network(str(teacher), "teacher"))
        for name, network in opened.items():
            if fingerprint(network) == taught:
                raise UserError(f"matcher {name} has the weights of the teacher {teacher}: choose another")
    return opened, open_sets(config, tuple(found))


def _sampled(config: ConfigDict, sets: Sets) -> list[str]:
    """What was not looked at, in sentences."""
    told = []
    for name, source in sets.sources.items():
        looked = len(source) + source.unreadable + source.passed_over
        if looked < source.in_all:
            told.append(
                f"Only {looked:,} of the {source.in_all:,} {name} pictures were looked at (config.max_pictures): what "
                f"the others show is not known."
            )
            if name == SYNTHETIC and config.filtered:
                raise UserError(
                    f"config.filtered: only {looked:,} of {source.in_all:,} synthetic pictures would be screened; set "
                    f"--config.max_pictures=0"
                )
    return told


def _audit(
    config: ConfigDict,
    name: str,
    network: Network | None,
    sets: Sets,
    faces: dict[str, Faces],
    found_copies: dict[str, copies.Copies],
    output: epath.Path,
) -> Finding:
    """All that one matcher finds."""
    finding, cross, thresholds = _measure(config, sets, faces, output / "matching" / name)
    figures, seed = finding.figures, config.seed
    members, heldout = faces[MEMBERS], faces.get(HELDOUT)
    copied = found_copies or {
        side: copies.find_equal(faces[SYNTHETIC], faces[side]) for side in (MEMBERS, HELDOUT) if side in faces
    }
    scale = len(members) / len(heldout) if heldout is not None else 1.0
    figures["screening"]["copies"] = copies.figures(copied[MEMBERS], copied.get(HELDOUT), scale)
    figures["screening"]["copies"]["of"] = "pixels" if found_copies else "embedding"
    figures["controls"] = {}
    if sets.shared > 1 and thresholds:
        threshold = next(iter(thresholds.values()))[0]
        figures["controls"]["shuffled"] = controls.shuffled(members, faces[SYNTHETIC], cross, threshold, seed=seed)
    if config.planted:
        tools = _tools(config, network, sets)
        made = controls.plants(members, heldout, **tools, unseen=faces.get(UNSEEN), count=config.planted, seed=seed)
        figures["controls"]["planted"] = controls.planted(finding.screened, made, seed=seed)
    return dataclasses.replace(finding, copied=copied)


def _measure(
    config: ConfigDict, sets: Sets, faces: dict[str, Faces], folder: epath.Path | None
) -> tuple[Finding, relations.Relation, dict[str, tuple[float, float]]]:
    """Every figure of some sets as one matcher sees them; beside it how they relate, and the frozen thresholds."""
    members, synthetic, heldout, seed = faces[MEMBERS], faces[SYNTHETIC], faces.get(HELDOUT), config.seed

    def compare(name: str, *both: Faces, **options: Any) -> relations.Relation:
        kept = folder / name if folder else None
        return relations.relate(*both, seed=seed, folder=kept, progress=f"matching {name}", **options)

    within = compare(AUTHENTIC, members, members, within=True)
    thresholds = relations.frozen_thresholds(within)
    exact = {"thresholds": [threshold for threshold, _ in thresholds.values() if np.isfinite(threshold)]}
    cross = compare(CROSS, synthetic, members, **exact)
    made = compare(MADE, synthetic, synthetic, within=True, **exact)
    related = {AUTHENTIC: within, MADE: made, CROSS: cross}
    nearest = {MEMBERS: cross.matches.gallery_scores}
    for name in (HELDOUT, UNSEEN):
        if name in faces:
            nearest[name] = membership.nearest_synthetic(faces[name], synthetic)
    rates = {name: relations.match_rates(relation, thresholds) for name, relation in related.items()}
    rates[f"{CROSS}_different"] = relations.different_label_rates(cross, thresholds)
    score_sets = {
        name: relations.score_set(mated=relation.scores, non_mated=(relation.centres, relation.counts))
        for name, relation in related.items()
    }
    score_sets["nearest_authentic"] = relations.score_set(synthetic=cross.matches.top_scores[:, 0])
    score_sets["nearest_synthetic"] = relations.score_set(**nearest)
    told_apart, known = {}, all(sets.sources[name].labelled for name in (MEMBERS, HELDOUT) if name in faces)
    if heldout is not None and known:
        told_apart = membership.membership(
            members, heldout, synthetic, unseen=faces.get(UNSEEN), nearest=nearest, seed=seed
        )
    rates_asked = tuple(sorted(map(float, config.rates), reverse=True))
    screened = screening.screen(synthetic, members, heldout, rates=rates_asked, people_known=known, seed=seed)
    figures = {
        "score_sets": score_sets,
        "relations": {name: relations.figures(relation, seed=seed) for name, relation in related.items()},
        "match_rates": rates,
        "linkage": linkage.linkage(synthetic, members, relation=cross, seed=seed) if sets.shared else {},
        "membership": told_apart,
        "screening": screened.figures(),
        "not_tried": [] if known else [NOT_KNOWN],
        "power": power.power(
            members=members.identities,
            heldout=heldout.identities if heldout is not None else 0,
            shared=sets.shared,
            match_rates=rates[CROSS],
            non_mated=int(within.counts.sum()),
        ),
    }
    return Finding(figures, screened), cross, thresholds


def _tools(config: ConfigDict, network: Network | None, sets: Sets) -> dict[str, Any]:
    """How planted pictures are looked at; without pictures of members only embeddings can be planted."""
    faces = sets.sources[MEMBERS].faces
    if network is None or not isinstance(faces, Pictures):
        return {}
    images = faces.at(network.preprocessing.size)
    return {
        "look": lambda rows: images.images(faces.positions[rows]),
        "embed": lambda pictures: embed(network, pictures, batch_size=config.batch_size, flip=config.flip),
    }


def _copies(sets: Sets) -> dict[str, copies.Copies]:
    """Synthetic pictures that are copies of members' pictures, and of held-out ones; nothing without pictures."""
    looks = {}
    for name in (SYNTHETIC, MEMBERS, HELDOUT):
        source = sets.sources.get(name)
        if source is not None and isinstance(source.faces, Pictures):
            looks[name] = copies.look(source.faces.at(LOOKED_AT), source.faces.positions, source.hashes)
    if SYNTHETIC not in looks or MEMBERS not in looks:
        return {}
    return {name: copies.find(looks[SYNTHETIC], looks[name]) for name in (MEMBERS, HELDOUT) if name in looks}


def _remedy(
    config: ConfigDict,
    matchers: dict[str, Network | None],
    sets: Sets,
    found: dict[str, Finding],
    output: epath.Path,
) -> dict[str, Any]:
    """What to leave out by the primary matcher, and how the rest looks to one that had no part in the choice."""
    if not config.exclude_rate:
        return {}
    primary, *others = found
    screened, rate = found[primary].screened, curves.rate_name(config.exclude_rate)
    copied = found[primary].copied[MEMBERS].pictures
    rows = np.union1d(remedy.exclude(screened, rate), copied).astype(np.int64)
    source = sets.sources[SYNTHETIC]
    told = {"rate": rate, "excluded": len(rows), "kept": len(source) - len(rows), "list": remedy.LIST}
    if mesh.is_lead():
        remedy.write_list(output / remedy.LIST, screened, rate, source.faces.positions, source.faces.name, copied)
    if rate not in screened.thresholds:
        known = " and ".join(screened.thresholds)
        instead = f", but of {known}: set --config.exclude_rate to that" if known else ", nor any other"
        return told | _impossible(f"these sets support no false positive rate of {rate}{instead}")
    if len(rows) == len(source):
        return told | _impossible("every synthetic picture is flagged, so that none is left: do not release this set")
    if config.filtered:
        told |= _filtered(config, source, rows, {"audit_rate": rate, "matcher": primary})
    # Pictures near held-out people go too, for the judgement only: else chance itself would be left out on one side.
    both = np.union1d(rows, screened.flagged_by_null(rate).pictures).astype(np.int64)
    if not len(rows) or len(both) == len(source):
        return told
    judge = others[0] if others else primary
    if judge == primary:
        logging.warning("the list is judged by the matcher that made it, which flatters: name a second one")
    options = {"batch_size": config.batch_size, "flip": config.flip}
    faces = embed_sets(output / "embeddings", judge, matchers[judge], sets, **options)
    after, _, _ = _measure(config, sets, faces | {SYNTHETIC: remedy.without(faces[SYNTHETIC], both)}, None)
    return told | {
        "matcher": primary,
        "judge": judge,
        "unused_judge": judge != primary,
        "judged": len(source) - len(both),
        "comparison": remedy.compare(found[judge].figures, after.figures),
    }


def _impossible(why: str) -> dict[str, str]:
    logging.warning("%s", why)
    return {"impossible": why}


def _filtered(config: ConfigDict, source: Source, rows: Int[np.ndarray, " k"], why: dict[str, Any]) -> dict[str, Any]:
    """Writes the dataset without what is listed, unless an earlier run of this audit did."""
    entry, left_out = parse(config.synthetic, "synthetic"), source.faces.positions[rows]
    if mesh.is_lead():
        split = entry.part or "train"
        remedy.write_filtered(config.filtered, entry.path, source.faces.source, left_out, why, split)
    return {"filtered": config.filtered}


def _pairs(sets: Sets, screened: dict[str, Any]) -> list[dict[str, Any]]:
    """Flagged pictures and copies with the authentic ones they are linked with, to be blurred by whoever shows them."""
    made, members = sets.sources[SYNTHETIC].faces, sets.sources[MEMBERS].faces
    if not (isinstance(made, Pictures) and isinstance(members, Pictures)):
        return []
    copied = screened["copies"]["suspicious"]
    known = {row["picture"] for row in copied}
    told = [(row, f"{row['similarity']:.3f} alike: a copy", True) for row in copied]
    told += [
        (row, f"score {row['score']:.3f}, flagged at {row['rate']}", False)
        for row in screened["suspicious"]
        if row["picture"] not in known
    ]
    return [
        {
            "synthetic": made.picture(row["picture"]),
            "authentic": members.picture(row["member"]),
            "text": f"{made.name(row['picture'])}: {text}",
            "copy": copy,
        }
        for row, text, copy in told[:_SHOWN]
    ]


def _name_pictures_only(audit: dict[str, Any], sets: Sets) -> None:
    """Says which synthetic pictures are flagged, and not whom they show: the audit is no table to link them by."""
    name = sets.sources[SYNTHETIC].faces.name
    for figures in (audit, *audit["other_matchers"].values()):
        screened = figures["screening"]
        for row in (*screened["suspicious"], *screened["copies"]["suspicious"]):
            row.pop("member", None)
            row.pop("identity", None)
            row["name"] = name(row["picture"])


def _without_curves(figures: dict[str, Any]) -> dict[str, Any]:
    """A further matcher's figures, without what is only drawn."""
    kept = {key: value for key, value in figures.items() if key != "score_sets"}
    bare = {name: {k: v for k, v in of.items() if k != "det"} for name, of in figures["relations"].items()}
    return kept | {"relations": bare}


def _headline(audit: dict[str, Any]) -> dict[str, Any]:
    figures, told_apart = audit["relations"][CROSS], audit["membership"]
    return {
        "matcher": audit["matcher"],
        "level": audit["verdict"]["level"],
        "summary": audit["verdict"]["summary"],
        "match_rates": audit["match_rates"][CROSS],
        **{name: figures.get(name) for name in ("eer", "fmr100", "fmr1000", "fdr", "auc", "d_sys")},
        "membership_auc": told_apart["identity"]["auc"] if told_apart else None,
    }
