"""The sets of an audit: members, held-out people, unseen and synthetic pictures, their identities numbered alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data import dataset
from sface_jax.privacy.inputs import numbering, same_names
from sface_jax.privacy.inputs.entries import Entry, parse
from sface_jax.privacy.inputs.sources import (
    HELDOUT,
    KEYS,
    LABELS,
    MEMBERS,
    SYNTHETIC,
    UNSEEN,
    Pictures,
    Source,
    is_ours,
    open_source,
)


@dataclasses.dataclass(frozen=True)
class Sets:
    """The sets of an audit.

    Attributes:
        sources: by name; members and synthetic are always there.
        shared: how many synthetic identities are members.
        notes: what was found out about the sets that bears on the audit, in sentences.
    """

    sources: dict[str, Source]
    shared: int
    notes: list[str]

    @property
    def needs_network(self) -> bool:
        """Whether some set is of pictures, which a matcher must embed."""
        return any(isinstance(source.faces, Pictures) for source in self.sources.values())


def open_sets(config: ConfigDict, matchers: Sequence[str]) -> Sets:
    """Opens the sets that a config names.

    Keys of the config: `authentic`, `heldout`, `unseen`, `synthetic`, `identity_map`, `labels`, `max_pictures`,
    `max_unreadable`, `seed`; see `configs/privacy.py`.

    Args:
        config: the config.
        matchers: their names, for embeddings that lie in a file for each.

    Raises:
        UserError: a set is not there or of no known format, two of them are one, too many pictures of one cannot be
            read, all held-out people are members, or unseen pictures are of people who are not.
    """
    if config.labels not in LABELS:
        raise UserError(f"config.labels={config.labels!r}: choose from {', '.join(LABELS)}")
    entries = {name: parse(config[key], key) for name, key in KEYS.items() if config[key]}
    for required in (MEMBERS, SYNTHETIC):
        if required not in entries:
            raise UserError(f"config.{KEYS[required]} is empty: set it to pictures or embeddings")
    _refuse_equal(entries)
    authentic = entries[MEMBERS]
    if HELDOUT not in entries and not authentic.part and "heldout" in _splits(authentic):
        entries[HELDOUT] = authentic._replace(part="heldout")
    found = {name: open_source(name, entry, config, matchers[0]) for name in KEYS if (entry := entries.get(name))}
    notes = [
        f"{name}: it is not known who is who, so every face counts as another person"
        for name, source in found.items()
        if not source.labelled
    ]
    members = found[MEMBERS]
    free = max(members.names) + 1
    if HELDOUT in found:
        found[HELDOUT] = _strangers(
            _numbered(found[HELDOUT], numbering.above(found[HELDOUT].names, free)), members, notes
        )
        free = max(found[HELDOUT].names) + 1
    if UNSEEN in found:
        found[UNSEEN] = _known(found[UNSEEN], members, notes)
    both_ours = is_ours(authentic) and is_ours(entries[SYNTHETIC])
    found[SYNTHETIC] = _same_identities(found[SYNTHETIC], members, free, config, both_ours, notes)
    shared = len(np.intersect1d(found[SYNTHETIC].labels, members.labels))
    for note in notes:
        logging.warning("%s", note)
    return Sets(found, shared, notes)


def _refuse_equal(entries: dict[str, Entry]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for name, entry in entries.items():
        other = seen.setdefault(entry.place, name)
        if other != name:
            raise UserError(f"config.{KEYS[name]} is the same as config.{KEYS[other]}: set it to other pictures")


def _splits(entry: Entry) -> tuple[str, ...]:
    return dataset.open(entry.path, "authentic").splits if is_ours(entry) else ()


def _numbered(source: Source, new: dict[int, int]) -> Source:
    """The set under new numbers of its identities."""
    if not new:
        return source
    old = np.array(sorted(new))
    values = np.array([new[number] for number in old.tolist()])
    labels = values[np.searchsorted(old, source.labels)]
    names = {new[number]: name for number, name in source.names.items()}
    return dataclasses.replace(source, labels=labels, names=names)


def _strangers(heldout: Source, members: Source, notes: list[str]) -> Source:
    """Held-out people without those who are members after all, by name or by an equal picture."""
    wrong = set()
    if heldout.labelled and members.labelled:
        both = list(members.names.values()), list(heldout.names.values())
        known = set(both[0]) - same_names.placeholders(both[0]) - same_names.placeholders(both[1])
        wrong = {number for number, name in heldout.names.items() if name in known}
    by_name = len(wrong)
    wrong |= set(heldout.labels[np.isin(heldout.hashes, members.hashes)].tolist())
    if not wrong:
        return heldout
    dropped = np.isin(heldout.labels, list(wrong))
    by_picture = len(wrong) - by_name
    told = f"{len(wrong)} held-out identities are members, {by_name} by name and {by_picture} by an equal picture"
    if dropped.all():
        raise UserError(f"{told}, and no other is left: set --config.heldout to people the generator never saw")
    notes.append(f"{told}: they are left out of the test")
    return heldout.without(dropped)


def _known(unseen: Source, members: Source, notes: list[str]) -> Source:
    """Unseen pictures under the members' numbers, without those that equal a training picture."""
    found = numbering.match(unseen.names, members.names)
    strange = [name for number, name in unseen.names.items() if number not in found.numbers]
    if strange or not (unseen.labelled and members.labelled):
        other = f"{len(strange)} identities of it are others, such as {strange[0]}" if strange else "it has no labels"
        raise UserError(f"config.unseen must hold pictures of the people in config.authentic, but {other}")
    trained = np.isin(unseen.hashes, members.hashes)
    if trained.all():
        raise UserError("all pictures of config.unseen are among those of config.authentic: none of them is unseen")
    if trained.any():
        notes.append(f"{int(trained.sum()):,} unseen pictures are equal to training pictures: they are left out")
    return _numbered(unseen, found.numbers).without(trained)


def _same_identities(
    synthetic: Source, members: Source, free: int, config: ConfigDict, both_ours: bool, notes: list[str]
) -> Source:
    """The synthetic set under the members' numbers, where its identities were made from members."""
    if config.labels != "auto" or not (synthetic.labelled and members.labelled):
        found = numbering.Numbers({}, "")
    elif config.identity_map:
        found = numbering.by_table(config.identity_map, synthetic.names, members.names)
    elif both_ours:
        found = numbering.Numbers({number: number for number in synthetic.names if number in members.names}, "number")
    else:
        found = numbering.match(synthetic.names, members.names)
    others = {number: name for number, name in synthetic.names.items() if number not in found.numbers}
    if found.numbers:
        logging.info(
            "%d of %d synthetic identities are authentic ones, by %s",
            *(len(found.numbers), len(synthetic.names), found.how),
        )
        if others:
            notes.append(
                f"{len(others):,} of {len(synthetic.names):,} synthetic identities are none of the authentic ones, "
                f"judged by {found.how}: questions of labels leave them out"
            )
    elif config.labels == "auto" and synthetic.labelled and members.labelled:
        notes.append(
            "no synthetic identity is called as an authentic one is, so nothing is asked that needs labels: name them "
            "alike or give config.identity_map where they were made from one another"
        )
    return _numbered(synthetic, found.numbers | numbering.above(others, free))
