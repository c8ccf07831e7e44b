"""The sets of an audit: members, held-out people, unseen and synthetic pictures, their identities numbered alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Int64
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data import dataset
from sface_jax.privacy.inputs import given, numbering, same_names
from sface_jax.privacy.inputs.entries import Entry, parse, refuse_equal
from sface_jax.privacy.inputs.listed import LABELS, Listed, evenly, is_ours, open_listed
from sface_jax.privacy.inputs.sources import HELDOUT, KEYS, MEMBERS, SYNTHETIC, UNSEEN, Pictures, Source


@dataclasses.dataclass(frozen=True)
class Sets:
    """The sets of an audit.

    Attributes:
        sources: by name; members and synthetic are always there.
        shared: how many synthetic identities are members, of those looked at.
        how: by what that was told: "name", "number" or "config.identity_map"; "" where none is.
        notes: what was found out about the sets that bears on the audit, in sentences.
    """

    sources: dict[str, Source]
    shared: int
    how: str
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
        UserError: a set is not there or of no known format, for each matcher where they are embeddings; two sets are
            one; too many pictures of one cannot be read; the authentic set is one identity; all held-out people are
            members; unseen pictures are of people who are not; or the table links none.
    """
    if config.labels not in LABELS:
        raise UserError(f"config.labels={config.labels!r}: choose from {', '.join(LABELS)}")
    entries = {name: parse(config[key], key) for name, key in KEYS.items() if config[key]}
    for required in (MEMBERS, SYNTHETIC):
        if required not in entries:
            raise UserError(f"config.{KEYS[required]} is empty: set it to pictures or embeddings")
    refuse_equal((KEYS[name], entry) for name, entry in entries.items())
    _check_embeddings(entries, matchers)
    authentic = entries[MEMBERS]
    if HELDOUT not in entries and not authentic.part and "heldout" in _splits(authentic):
        entries[HELDOUT] = authentic._replace(part="heldout")
    listed = {name: open_listed(name, entries[name], config, matchers[0]) for name in KEYS if name in entries}
    notes = [note for each in listed.values() for note in each.notes]
    how = _number(listed, config, is_ours(authentic) and is_ours(entries[SYNTHETIC]), notes)
    found = _look(listed, config, notes)
    members, synthetic = found[MEMBERS], found[SYNTHETIC]
    if len(np.unique(members.labels)) < 2:
        raise UserError("config.authentic holds one identity: an audit compares people, so name pictures of more")
    if HELDOUT in found:
        found[HELDOUT] = _strangers(found[HELDOUT], members, notes)
    if UNSEEN in found:
        found[UNSEEN] = _untrained(found[UNSEEN], members, notes)
    shared = len(np.intersect1d(synthetic.labels, members.labels))
    strange = int((~np.isin(synthetic.labels, members.labels)).sum())
    if how and strange:
        notes.append(
            f"{strange:,} of {len(synthetic):,} synthetic pictures are of nobody among the authentic identities looked "
            f"at, judged by {how}: questions of labels leave them out"
        )
    for note in notes:
        logging.warning("%s", note)
    return Sets(found, shared, how, notes)


def _check_embeddings(entries: dict[str, Entry], matchers: Sequence[str]) -> None:
    """Refuses embeddings that are not there for each matcher, before any work."""
    for name, entry in entries.items():
        if not given.is_given(entry.path):
            continue
        if given.MATCHER not in entry.path and len(matchers) > 1:
            raise UserError(
                f"config.{KEYS[name]}={entry.path} can be of one matcher only, and {len(matchers)} are named: write "
                f"{given.MATCHER} in place of their names, or name one in config.matchers"
            )
        paths = [entry.path.replace(given.MATCHER, matcher) for matcher in matchers]
        missing = [path for path in paths if not epath.Path(path).exists()]
        if missing:
            raise UserError(f"there are no embeddings at {', '.join(missing)}: write them there, or name pictures")


def _splits(entry: Entry) -> tuple[str, ...]:
    return dataset.open(entry.path, "authentic").splits if is_ours(entry) else ()


def _number(listed: dict[str, Listed], config: ConfigDict, both_ours: bool, notes: list[str]) -> str:
    """Numbers the identities of all sets as those of the members, in place; returns by what synthetic ones were."""
    members = listed[MEMBERS]
    free = max(members.names) + 1
    if HELDOUT in listed:
        listed[HELDOUT] = listed[HELDOUT].numbered(numbering.above(listed[HELDOUT].names, free))
        free = max(listed[HELDOUT].names) + 1
    if UNSEEN in listed:
        listed[UNSEEN] = listed[UNSEEN].numbered(_known(listed[UNSEEN], members))
    synthetic = listed[SYNTHETIC]
    linked = _linked(synthetic, members, config, both_ours, notes)
    others = synthetic.names.keys() - linked.numbers.keys()
    listed[SYNTHETIC] = synthetic.numbered(linked.numbers | numbering.above(others, free))
    return linked.how


def _known(unseen: Listed, members: Listed) -> dict[int, int]:
    """The members' numbers of the people in unseen pictures."""
    numbers = numbering.match(unseen.names, members.names).numbers
    strange = [name for number, name in unseen.names.items() if number not in numbers]
    if strange or not (unseen.labelled and members.labelled):
        other = f"{len(strange)} identities of it are others, such as {strange[0]}" if strange else "it has no labels"
        raise UserError(f"config.unseen must hold pictures of the people in config.authentic, but {other}")
    return numbers


def _linked(
    synthetic: Listed, members: Listed, config: ConfigDict, both_ours: bool, notes: list[str]
) -> numbering.Numbers:
    """The members' numbers of synthetic identities that were made from them."""
    none, labelled = numbering.Numbers({}, ""), synthetic.labelled and members.labelled
    if config.identity_map:
        if config.labels != "auto" or not labelled:
            why = f"config.labels={config.labels}" if config.labels != "auto" else "a set without labels"
            raise UserError(f"config.identity_map links identities by name, which {why} rules out: leave out one")
        found = numbering.by_table(config.identity_map, synthetic.names, members.names)
    elif config.labels != "auto" or not labelled:
        return none
    elif both_ours:
        same = synthetic.names.keys() & members.names.keys()
        found = numbering.Numbers({number: number for number in same}, "number") if same else none
    else:
        found = numbering.match(synthetic.names, members.names)
    if found.numbers:
        logging.info(
            "%d of %d synthetic identities are authentic ones, by %s",
            *(len(found.numbers), len(synthetic.names), found.how),
        )
    else:
        examples = f"{next(iter(synthetic.names.values()))!r} and {next(iter(members.names.values()))!r}"
        notes.append(
            f"no synthetic identity is called as an authentic one is (such as {examples}), so nothing is asked that "
            f"needs labels: where they were made from one another, name them alike or give config.identity_map"
        )
    return found


def _look(listed: dict[str, Listed], config: ConfigDict, notes: list[str]) -> dict[str, Source]:
    """Draws what is looked at of each set, and reads it."""
    order = _order([each.labels for each in listed.values()], config.seed)
    found = {}
    for name, each in listed.items():
        positions = evenly(order[each.labels], config.max_pictures, config.seed)
        there, drawn = len(np.unique(each.labels)), len(np.unique(each.labels[positions]))
        if each.labelled and drawn < there:
            notes.append(f"{name}: {drawn:,} of {there:,} identities are looked at, as config.max_pictures asks")
        found[name] = each.look(positions, config.max_unreadable)
    return found


def _order(sets: Iterable[Int64[np.ndarray, " _"]], seed: int) -> Int64[np.ndarray, " m"]:
    """The place of each identity, by number, in the order in which all sets take theirs.

    Those that more sets have come first, so that what is looked at of each is of the same people; among these, the
    order is drawn. What is drawn for a number depends on no other.
    """
    counts = np.bincount(np.concatenate([np.unique(labels) for labels in sets]))
    return np.argsort(np.lexsort((np.random.default_rng(seed).random(len(counts)), -counts)))


def _strangers(heldout: Source, members: Source, notes: list[str]) -> Source:
    """Held-out people without those who are members after all, by name or by an equal picture."""
    there = set(heldout.labels.tolist())
    wrong = there & _named_alike(heldout.names, members.names) if heldout.labelled and members.labelled else set()
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


def _named_alike(names: dict[int, str], known: dict[int, str]) -> set[int]:
    """Those numbers whose names are in another set, in whatever spelling; names that only count people say nothing."""
    numbers, first, second = list(names), list(names.values()), list(known.values())
    counting = same_names.placeholders(first) | same_names.placeholders(second)
    found = same_names.pairs(first, second)
    return {numbers[a] for a, b in found if first[a] not in counting and second[b] not in counting}


def _untrained(unseen: Source, members: Source, notes: list[str]) -> Source:
    """Unseen pictures without those that equal a training picture."""
    trained = np.isin(unseen.hashes, members.hashes)
    if trained.all():
        raise UserError("all pictures of config.unseen are among those of config.authentic: none of them is unseen")
    if trained.any():
        notes.append(f"{int(trained.sum()):,} unseen pictures are equal to training pictures: they are left out")
    return unseen.without(trained)
