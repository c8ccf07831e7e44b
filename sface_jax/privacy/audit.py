"""Stage privacy: how much of the authentic identities a synthetic dataset gives away."""

from __future__ import annotations

from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int
from ml_collections import ConfigDict

from sface_jax.core import files, mesh
from sface_jax.core.errors import UserError
from sface_jax.data import cards
from sface_jax.privacy import attacks, card, controls, metrics, relations, sources, verdict
from sface_jax.privacy.relations import Faces
from sface_jax.recognition.network import Network, OpenNetwork, load
from sface_jax.verification import networks
from sface_jax.verification.embed import embed

MEMBERS, HELDOUT, SYNTHETIC = "members", "heldout", "synthetic"


def run(config: ConfigDict, workdir: epath.Path, open_network: OpenNetwork = load) -> dict[str, Any]:
    """Audits a synthetic dataset and writes `workdir/privacy/audit.json`, and the figures into the dataset's card.

    Keys of the config: `authentic`, `synthetic` (a dataset, or a folder of pictures), `heldout` (pictures of people the
    generator never saw; by default split "heldout" of the authentic dataset), `matchers` (networks, the first is the
    primary one), `teacher` (may not be a matcher), `max_pictures` (of each set, 0 is all), `planted` (pictures to
    plant as a control, 0 is none), `batch_size`, `flip`, `seed`.

    Returns:
        `level`, `summary` and the headline figures of the primary matcher.

    Raises:
        UserError: a set or a matcher is missing, a matcher is the teacher, or the sets share no identity.
    """
    workdir = epath.Path(workdir)
    found = networks.find(config.matchers, workdir, "matchers")
    _refuse_teacher(config, workdir, found)
    matchers = networks.load_all(found, "matchers", open_network)
    digest = cards.digest_of(config.synthetic)
    opened = _open(config, next(iter(matchers.values())).preprocessing.size)
    chosen = {name: source.chosen(config.max_pictures, config.seed) for name, source in opened.items()}
    audits = {}
    for name, network in matchers.items():
        audits[name] = _audit(config, network, opened, chosen)
        logging.info("matcher %s: %s", name, audits[name]["verdict"]["summary"])
    primary, *others = audits
    audit = {
        "matcher": primary,
        "matchers": list(audits),
        "sets": {name: _size(source, chosen[name]) for name, source in opened.items()},
        "synthetic_sha256": digest,
        **audits[primary],
        "other_matchers": {name: _without_curves(audits[name]) for name in others},
    }
    if mesh.is_lead():
        files.write_json(workdir / "privacy" / "audit.json", finite(audit))
        card.write(config.synthetic, digest, finite(audit))
    for finding in audit["verdict"]["findings"]:
        logging.info("%s: %s. %s", finding["name"], finding["level"], finding["text"])
    return finite(_headline(audit))


def finite(value: Any) -> Any:
    """The same tree as strict JSON holds it: infinities and NaN become null, NumPy numbers Python's."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _refuse_teacher(config: ConfigDict, workdir: epath.Path, found: dict[str, epath.Path]) -> None:
    teacher = networks.where(config.teacher, workdir) if config.teacher else None
    if teacher in found.values():
        raise UserError(
            f"matcher {config.teacher} is the teacher of the networks under audit, so blind to what it taught: "
            f"set --config.matchers to networks trained on other identities"
        )


def _open(config: ConfigDict, size: int) -> dict[str, sources.Source]:
    """Members, held-out and synthetic pictures, identities numbered alike; files are resized to `size`."""
    authentic, synthetic = epath.Path(config.authentic), epath.Path(config.synthetic)
    for name, path in (("synthetic", config.synthetic), ("heldout", config.heldout)):
        if path and epath.Path(path).resolve() == authentic.resolve():
            raise UserError(f"config.{name} is the same folder as config.authentic: set it to other pictures")
    heldout = None
    if sources.is_dataset(authentic):
        members = sources.open_dataset(authentic, "train", "authentic")
        heldout = sources.open_dataset(authentic, "heldout", "authentic")
    else:
        members = sources.open_folder(authentic, size)
    if members is None:
        raise UserError(f"{authentic} has no split train: set --config.authentic to one that stage prepare wrote")
    if config.heldout:
        heldout = sources.open_folder(epath.Path(config.heldout), size)
    if sources.is_dataset(synthetic):
        made = sources.open_dataset(synthetic, "train", "synthetic")
    else:
        made = sources.open_folder(synthetic, size)
    if made is None:
        raise UserError(f"{synthetic} has no split train: set --config.synthetic to one that stage synthesize wrote")
    opened = {MEMBERS: members, SYNTHETIC: sources.same_identities(made, members)}
    if heldout is None:
        logging.warning("no held-out identities: membership cannot be tested")
        return opened
    return opened | {HELDOUT: heldout}


def _audit(
    config: ConfigDict, network: Network, opened: dict[str, sources.Source], chosen: dict[str, Int[np.ndarray, " k"]]
) -> dict[str, Any]:
    """All that one matcher finds."""
    options = {"batch_size": config.batch_size, "flip": config.flip}
    faces = {
        name: Faces(
            embed(network, source.images, chosen[name], progress=f"embedding {name}", **options),
            source.labels[chosen[name]],
        )
        for name, source in opened.items()
    }
    members, synthetic, heldout = faces[MEMBERS], faces[SYNTHETIC], faces.get(HELDOUT)
    seed = config.seed

    related = {
        "authentic_authentic": relations.relate(members, members, within=True),
        "synthetic_synthetic": relations.relate(synthetic, synthetic, within=True),
        "authentic_synthetic": relations.relate(synthetic, members),
    }
    for name, relation in related.items():
        if not len(relation.scores) or not relation.counts.sum():
            raise UserError(f"{name} has no mated or no non-mated pair: use at least 2 identities of 2 pictures each")
    within, cross = related["authentic_authentic"], related["authentic_synthetic"]
    nearest = {MEMBERS: relations.relate(members, synthetic, top_k=1).matches.top_scores[:, 0]}
    if heldout is not None:
        nearest[HELDOUT] = relations.relate(heldout, synthetic, top_k=1).matches.top_scores[:, 0]
    thresholds = relations.frozen_thresholds(within)

    score_sets = {
        name: relations.score_set(mated=relation.scores, non_mated=(relation.centres, relation.counts))
        for name, relation in related.items()
    }
    score_sets["nearest_authentic"] = relations.score_set(synthetic=cross.matches.top_scores[:, 0])
    score_sets["nearest_synthetic"] = relations.score_set(**nearest)
    rates = {name: relations.match_rates(relation, thresholds, seed=seed) for name, relation in related.items()}
    rates["authentic_synthetic_different"] = relations.different_label_rates(cross, thresholds)

    audit: dict[str, Any] = {
        "score_sets": score_sets,
        "relations": {name: relations.figures(relation, seed=seed) for name, relation in related.items()},
        "match_rates": rates,
        "linkage": attacks.label_recovery(synthetic, members, cross, seed=seed),
        "membership": {},
        "near_copies": {},
        "controls": {},
    }
    if heldout is not None:
        audit["membership"] = attacks.membership(
            nearest[MEMBERS], members.labels, nearest[HELDOUT], heldout.labels, seed=seed
        )
    if thresholds:
        threshold = next(iter(thresholds.values()))[0]
        audit["controls"]["shuffled"] = controls.shuffled(members, synthetic, cross, threshold, seed=seed)
    if config.planted:
        origins = np.random.default_rng(seed).permutation(len(members))[: config.planted]
        copies = controls.near_copies(opened[MEMBERS].images.images(chosen[MEMBERS][origins]))
        planted = controls.planted(
            embed(network, copies, **options), origins, members, nearest[MEMBERS], nearest.get(HELDOUT)
        )
        audit["controls"]["planted"] = planted
        audit["near_copies"] = _near_copies(synthetic, cross, within, planted["near_copy_threshold"], seed)
    audit["verdict"] = verdict.decide(audit)
    return audit


def _near_copies(
    synthetic: Faces, cross: relations.Relation, within: relations.Relation, threshold: float, seed: int
) -> dict[str, Any]:
    """Synthetic pictures as close to an authentic one as a planted copy; the baseline is authentic pictures' own."""
    rate = metrics.match_rate(cross.matches.top_scores[:, 0], synthetic.labels, threshold, seed=seed)
    baseline = float((within.matches.top_scores[:, 0] >= threshold).mean())
    return {"threshold": threshold, "baseline": baseline} | rate


def _size(source: sources.Source, chosen: Int[np.ndarray, " k"]) -> dict[str, int]:
    """How much of a set was looked at."""
    return {
        "identities": len(np.unique(source.labels[chosen])),
        "pictures": len(chosen),
        "pictures_in_all": len(source.labels),
    }


def _without_curves(audit: dict[str, Any]) -> dict[str, Any]:
    """A further matcher's figures, without what is only drawn."""
    kept = {key: value for key, value in audit.items() if key != "score_sets"}
    bare = {name: {k: v for k, v in figures.items() if k != "det"} for name, figures in audit["relations"].items()}
    return kept | {"relations": bare}


def _headline(audit: dict[str, Any]) -> dict[str, Any]:
    figures = audit["relations"]["authentic_synthetic"]
    membership = audit["membership"]
    return {
        "matcher": audit["matcher"],
        "level": audit["verdict"]["level"],
        "summary": audit["verdict"]["summary"],
        "match_rates": audit["match_rates"]["authentic_synthetic"],
        **{name: figures[name] for name in ("eer", "fmr100", "fmr1000", "fdr", "auc", "d_sys")},
        "membership_auc": membership["identity"]["auc"] if membership else None,
    }
