"""What else may be handed out, and tell who was learned: the discriminator, and released recognisers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.privacy.attacks import discriminator, released
from sface_jax.privacy.inputs.embedded import embed_sets
from sface_jax.privacy.inputs.sets import Sets
from sface_jax.privacy.inputs.sources import HELDOUT, MEMBERS, UNSEEN, Pictures, Source
from sface_jax.privacy.relations import Faces
from sface_jax.recognition.network import OpenNetwork
from sface_jax.verification import networks

OpenDiscriminator = Callable[[str], Any]
"""The folder of a generator -> its discriminator's logits, with the `size` of its pictures; None where it has none."""


def threats(
    config: ConfigDict,
    workdir: epath.Path,
    sets: Sets,
    faces: dict[str, Faces],
    output: epath.Path,
    open_network: OpenNetwork,
    open_discriminator: OpenDiscriminator | None,
) -> dict[str, Any]:
    """Attacks on networks that are handed out, where there are any and held-out pictures to judge them on.

    Args:
        config: `generator`, `released`, `teacher`, `batch_size` and `flip` of it.
        workdir: where networks are looked for.
        sets: the sets.
        faces: what the reference matcher saw of them.
        output: the audit's folder, where embeddings are kept.
        open_network: opens recognisers.
        open_discriminator: opens a discriminator.

    Returns:
        "discriminator", see `discriminator.discriminator`, and "released", see `released.released`; {} where not tried.

    Raises:
        UserError: a network that is named is not there.
    """
    shown = {name: sets.sources[name] for name in (MEMBERS, HELDOUT, UNSEEN) if name in sets.sources}
    asked = [name for name in ("generator", "released") if config[name]]
    if asked and (HELDOUT not in shown or not all(isinstance(of.faces, Pictures) for of in shown.values())):
        logging.warning("config.%s: not tried without held-out people and pictures", " and config.".join(asked))
        return {"discriminator": {}, "released": {}}
    return {
        "discriminator": _discriminator(config, shown, open_discriminator) if config.generator else {},
        "released": _released(config, workdir, sets, faces, output, open_network) if config.released else {},
    }


def _discriminator(
    config: ConfigDict, shown: dict[str, Source], open_discriminator: OpenDiscriminator | None
) -> dict[str, Any]:
    folder = epath.Path(config.generator)
    folder = folder / "gan" if (folder / "gan").exists() else folder
    logits = open_discriminator(str(folder)) if open_discriminator else None
    if logits is None:
        logging.warning("%s has no discriminator: that attack is not made", config.generator)
        return {}
    pictures = {
        name: discriminator.Pictures(of.faces.at(logits.size), of.labels, of.faces.positions)
        for name, of in shown.items()
    }
    labels = shown[MEMBERS].labels
    own = shown[MEMBERS].faces.kind == "TFDS dataset" and int(np.max(labels)) < logits.classes  # the generator's own
    return discriminator.discriminator(
        logits,
        pictures[MEMBERS],
        pictures[HELDOUT],
        pictures.get(UNSEEN),
        own_labels=own,
        batch_size=config.batch_size,
        progress="discriminator",
    )


def _released(
    config: ConfigDict,
    workdir: epath.Path,
    sets: Sets,
    faces: dict[str, Faces],
    output: epath.Path,
    open_network: OpenNetwork,
) -> dict[str, Any]:
    control = networks.where(config.teacher, workdir) if config.teacher else None
    names = list(config.released)
    if control is not None and control.exists() and config.teacher not in names:
        names.append(config.teacher)  # it did learn the members: the attack must find it
    found = networks.find(names, workdir, "released")
    only = dataclasses.replace(sets, sources={name: sets.sources[name] for name in (MEMBERS, HELDOUT)})
    views = {}
    for name, network in networks.load_all(found, "released", open_network).items():
        seen = embed_sets(output / "embeddings", name, network, only, batch_size=config.batch_size, flip=config.flip)
        views[name] = released.View(seen[MEMBERS], seen[HELDOUT], released.class_centres(str(found[name])))
    reference = released.View(faces[MEMBERS], faces[HELDOUT])
    return released.released(views, reference, control=control.stem if control is not None else "")
