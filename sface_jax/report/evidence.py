"""The tables of a privacy audit in the words of ISO/IEC 19795-1, for those who want to see what a verdict stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sface_jax.report import leakage, tables, tried, words
from sface_jax.report.tables import Cell, Table
from sface_jax.report.tried import Part, one_in, part

SETS = {
    "members": "authentic, trained the generator",
    "heldout": "authentic, held out",
    "unseen": "authentic, unseen pictures of members",
    "synthetic": "synthetic",
}
PAIRS = {
    "authentic_authentic": "authentic – authentic, same identity",
    "synthetic_synthetic": "synthetic – synthetic, same label",
    "authentic_synthetic": "authentic – synthetic, same label",
    "authentic_synthetic_different": "authentic – synthetic, different labels",
}
MOST_LISTED = 20


def sets(audit: Part) -> Iterator[Table]:
    """What was looked at, and what could not be."""
    rows = []
    for name, label in SETS.items():
        size = part(audit, "sets", name)
        if size:
            fta = size.get("fta")
            rows.append(
                (
                    label,
                    [
                        Cell(words.count(size.get("identities")), [] if size.get("labelled", True) else ["not known"]),
                        Cell(words.count(size.get("pictures"))),
                        Cell(words.count(size.get("pictures_in_all"))),
                        Cell(words.percent(fta, 2), [f"{words.count(size.get('unreadable'))} unreadable"])
                        if words.finite(fta)
                        else Cell(words.DASH),
                        Cell(words.count(size.get("passed_over"))),
                        Cell(size.get("kind", words.DASH)),
                    ],
                )
            )
    if rows:
        yield Table(
            "Sets compared. FTA: failure to acquire, pictures that cannot be read",
            ("set", "identities", "pictures compared", "of", "FTA", "passed over", "read from"),
            rows,
        )


def thresholds(audit: Part) -> Iterator[Table]:
    """Match rates at the frozen thresholds, with the counts they are made of."""
    found = part(audit, "match_rates")
    rates = list(dict.fromkeys(rate for by_rate in found.values() for rate in by_rate))
    for rate in rates:
        rows = []
        for name, label in PAIRS.items():
            values = part(found, name, rate)
            if values:
                accepted = values.get("accepted")
                if accepted is None and words.finite(values.get("rate")) and words.finite(values.get("comparisons")):
                    accepted = round(values["rate"] * values["comparisons"])
                rows.append(
                    (
                        label,
                        [
                            Cell(words.count(values.get("comparisons"))),
                            Cell(words.count(accepted)),
                            Cell(
                                words.percent(values.get("rate")),
                                tables.some(words.interval(values.get("interval"), words.percent)),
                            ),
                            Cell(words.ratio(values.get("ratio_to_chance"))),
                        ],
                    )
                )
        any_row = next((part(found, name, rate) for name in PAIRS if part(found, name, rate)), {})
        if rows:
            yield Table(
                f"Threshold {words.decimal(any_row.get('threshold'), 4)}, frozen at FMR {one_in(rate)} of authentic "
                f"strangers (reached: {words.percent(any_row.get('fmr'))})",
                ("comparisons", "number", "at or above it", "match rate, 95 % interval", "of chance"),
                rows,
            )


def linkage(audit: Part) -> Iterator[Table]:
    """Identification: ranks of the right identity, and the open set."""
    found = part(audit, "linkage")
    single = part(found, "single") or {key: found[key] for key in ("rank1", "rank10") if key in found}
    probes = {"single picture, nearest picture": single} if single else {}
    for count, by_pooling in part(found, "pooled").items():
        for pooling, values in by_pooling.items() if isinstance(by_pooling, dict) else ():
            probes[f"{_pictures(count)}, {pooling} cosine"] = values
    rows = []
    for probe, values in probes.items():
        ranks = [part(values, key) for key in ("rank1", "rank10")]
        if any(ranks):
            rows.append(
                (
                    probe,
                    [Cell(words.count(ranks[0].get("comparisons", ranks[0].get("identities")))), *map(_ranked, ranks)],
                )
            )
    if rows:
        yield Table(
            "Closed-set identification: share of searches that name the own identity at rank 1, or among the first 10",
            ("probe", "searches", "rank 1", "rank 10"),
            rows,
        )
    rates = list(dict.fromkeys(rate for values in probes.values() for rate in part(values, "open_set")))
    rows = [
        (probe, [_open_set(part(values, "open_set", rate)) for rate in rates])
        for probe, values in probes.items()
        if part(values, "open_set")
    ]
    if rows:
        yield Table(
            "Open-set identification: FNIR at FPIR, non-mated searches being the same probes with their identity taken "
            "out of the gallery",
            ("probe", *(f"FNIR at FPIR {one_in(rate)}" for rate in rates)),
            rows,
        )


def _pictures(count: str) -> str:
    return {"1": "1 picture", "all": "all pictures"}.get(count, f"{count} pictures")


def _ranked(values: Part) -> Cell:
    notes = [words.interval(values.get("interval"), words.percent), f"chance {words.percent(values.get('chance'))}"]
    return Cell(words.percent(values.get("rate")), [note for note in notes if note])


def _open_set(values: Part) -> Cell:
    chance = values.get("chance_fnir")
    notes = tables.some(words.interval(values.get("interval"), words.percent))
    notes += [f"chance {words.percent(chance)}"] if words.finite(chance) else []
    return Cell(tables.marked(words.percent(values.get("fnir")), values), notes)


def membership(audit: Part) -> Iterator[Table]:
    """Every attack on membership, the ones chosen beforehand in the first rows."""
    found = part(audit, "membership")
    named = part(found, "attacks")
    primary = list(part(found, "primary").values())
    rows = {name: named[name] for name in [*primary, *named] if name in named}
    rows = rows or {f"by {unit}": found[unit] for unit in ("identity", "picture") if part(found, unit)}
    if rows:
        tried_in_all = f", {found['tried']} attacks in all" if words.finite(found.get("tried")) else ""
        made = [
            (tables.chosen(name, values, name in primary, values.get("unit", "")), values)
            for name, values in rows.items()
        ]
        yield tables.judged(f"Members against held-out people{tried_in_all}", made)
    epsilon = part(found, "epsilon")
    if words.finite(epsilon.get("epsilon")):
        yield Table(
            "Lower bound on epsilon: no guarantee of differential privacy by identity below it could be true; 0 is no "
            "evidence for one",
            ("epsilon at least", "value", "at delta", "confidence", "most that so many people can show", "at TPR, FPR"),
            [
                (
                    "by identity",
                    [
                        Cell(words.decimal(epsilon["epsilon"], 2)),
                        Cell(words.plain(epsilon.get("delta"))),
                        Cell(words.percent(epsilon.get("confidence"), 0)),
                        Cell(words.decimal(epsilon.get("largest_measurable"), 2)),
                        Cell(f"{words.percent(epsilon.get('tpr'))}, {words.percent(epsilon.get('fpr'))}"),
                    ],
                )
            ],
        )
    memorised = part(found, "memorised")
    if memorised:
        paired = [("paired within identities", memorised)]
        yield tables.judged("Training pictures against unseen pictures of the same people", paired)


def screening(audit: Part) -> Iterator[Table]:
    """The search for single pictures that show a member."""
    found = part(audit, "screening")
    rows = [
        (
            f"FPR {one_in(rate)}",
            [
                Cell(
                    tables.marked(words.percent(values.get("fpr")), values),
                    [f"{words.count(values.get('exceedances'))} of null"],
                ),
                Cell(words.decimal(values.get("threshold"))),
                Cell(words.count(values.get("flagged"))),
                Cell(words.count(values.get("links"))),
                Cell(
                    words.plain(values.get("expected")),
                    tables.some(words.interval(values.get("interval"), words.plain)),
                ),
                Cell(words.p_value(values.get("p_value"))),
            ],
        )
        for rate, values in part(found, "rates").items()
    ]
    if rows:
        yield Table(
            f"{words.count(found.get('pictures'))} synthetic pictures searched for {words.count(found.get('people'))} "
            f"members; the null: {words.count(found.get('null_people'))} {found.get('null', 'others')}; score: "
            f"{found.get('calibration', 'cosine')}. {tried.per_search(found)}",
            ("asked", "reached", "threshold", "pictures flagged", "links", "expected by chance", "p"),
            rows,
        )
    copies = part(found, "copies")
    expected = part(copies, "heldout").get("expected_among_members")
    rows = [
        (
            SETS[name],
            [
                Cell(words.count(part(copies, name).get("equal"))),
                Cell(words.count(part(copies, name).get("alike"))),
                Cell(words.plain(expected) if name == "members" else words.DASH),
            ],
        )
        for name in ("members", "heldout")
        if part(copies, name)
    ]
    if rows:
        yield Table(
            f"Copies, by their {copies.get('of', 'pixels')}",
            ("of pictures", "equal", "alike but for small changes", "expected by chance"),
            rows,
        )
    listed = [row for row in found.get("suspicious") or [] if isinstance(row, dict)]
    if listed:
        yield Table(
            f"The {min(len(listed), MOST_LISTED)} most suspicious synthetic pictures of {len(listed):,}; whom they "
            "show is not told",
            ("picture", "score", "flagged at FPR", "as strong by chance"),
            [
                (
                    str(row.get("name") or row.get("picture")),
                    [
                        Cell(words.decimal(row.get("score"))),
                        Cell(one_in(row["rate"]) if row.get("rate") else words.DASH),
                        Cell(words.decimal(row.get("expected_by_chance"), 1)),
                    ],
                )
                for row in listed[:MOST_LISTED]
            ],
        )


def planted(audit: Part) -> Iterator[Table]:
    """What of the planted leaks was found, and at which share the audit notices them."""
    kinds = {
        name: values for name, values in part(audit, "controls", "planted", "kinds").items() if isinstance(values, dict)
    }
    rates = list(dict.fromkeys(rate for values in kinds.values() for rate in part(values, "rates")))
    if kinds:
        yield Table(
            "Planted leaks found, by kind: TPR with 95 % interval",
            (
                "kind",
                "planted",
                *(f"at FPR {one_in(rate)}" for rate in rates),
                "as near duplicates",
                "origin at rank 1",
            ),
            [
                (
                    tried.KINDS.get(name, name),
                    [
                        Cell(words.count(values.get("planted"))),
                        *(tables.share(part(values, "rates", rate), "tpr") for rate in rates),
                        tables.share(part(values, "near_duplicates"), "rate"),
                        tables.share(part(values, "rank1"), "rate"),
                    ],
                )
                for name, values in kinds.items()
            ],
        )
    shares = list(dict.fromkeys(share for values in kinds.values() for share in part(values, "shares")))
    if shares:
        yield Table(
            "With such a share of the synthetic set replaced by leaks: how many that is, and whether the screening "
            "notices (p < 0.05)",
            ("kind", *(words.percent(float(share)) for share in shares)),
            [
                (tried.KINDS.get(name, name), [_noticed(audit, part(values, "shares", share)) for share in shares])
                for name, values in kinds.items()
            ],
        )
    shuffled = part(audit, "controls", "shuffled")
    if shuffled:
        yield Table(
            "Labels shuffled: both rates are of pairs of different labels, and differ by chance",
            ("control", "AUC", "match rate at FMR 1e-2", "of truly different labels"),
            [
                (
                    "shuffled labels",
                    [
                        Cell(words.decimal(shuffled.get("auc"))),
                        Cell(
                            words.percent(shuffled.get("rate")),
                            tables.some(words.interval(shuffled.get("interval"), words.percent)),
                        ),
                        Cell(words.percent(shuffled.get("expected_rate"))),
                    ],
                )
            ],
        )


def _noticed(audit: Part, values: Part) -> Cell:
    if not values:
        return Cell(words.DASH)
    told = {True: "noticed", False: "not noticed"}.get(values.get("noticed"), "cannot be told")
    draws, p_value = tried.of_draws(values), values.get("p_value")
    shown = f"{'median p' if draws else 'p'} {words.p_value(p_value)}" if words.finite(p_value) else ""
    return Cell(told, tables.some(draws, tried.planted_in(audit, values), shown))


def networks(audit: Part) -> Iterator[Table]:
    """The discriminator, and released recognisers against the one that had no teacher."""
    found = part(audit, "discriminator")
    chosen = part(found, "primary")
    rows = [
        (tables.chosen(name, values, chosen.get(unit) == name, unit), part(values, unit))
        for name, values in part(found, "attacks").items()
        for unit in ("identity", "picture")
        if part(values, unit)
    ]
    if rows:
        yield tables.judged("Discriminator: scores of a picture over all labels, members against held-out people", rows)
    memorised = part(found, "memorised")
    if memorised:
        paired = [("paired within identities", memorised)]
        yield tables.judged("Discriminator: training pictures against unseen pictures of the same people", paired)
    recognised = part(found, "recognised")
    if recognised:
        yield Table(
            "Discriminator: share of pictures for which their own label scores highest",
            ("pictures", *(key for key in recognised)),
            [("rank 1", [Cell(words.percent(value)) for value in recognised.values()])],
        )
    found = part(audit, "released")
    known = part(found, "networks")
    if known:
        control = part(found, "control").get("network")
        rows = [
            (Cell(name, ["the control: it did see them"] if name == control else []), values)
            for name, values in known.items()
        ]
        yield tables.judged(
            "Recognisers to be released: does one tell who taught it? By the score that was chosen beforehand",
            rows,
            ("AUC against the one without a teacher", _difference),
        )


def _difference(values: Part) -> Cell:
    found = part(values, "difference")
    if not words.finite(found.get("auc")):
        return Cell(words.DASH)
    shown = words.interval(found.get("interval"), words.decimal)
    return Cell(f"{found['auc']:+.3f}", tables.some(shown, f"to {found.get('to')}"))


def remedy(audit: Part) -> Iterator[Table]:
    """Before and after leaving out what was flagged."""
    found = part(audit, "remedy")
    rows = [row for row in found.get("comparison") or [] if isinstance(row, dict)]
    if rows:
        judge = f", by the matcher “{found['judge']}”" if found.get("judge") else ""
        flattering = "" if found.get("unused_judge", True) else ", which chose what to leave out, and so is flattered"
        yield Table(
            f"Before and after the flagged pictures are left out{judge}{flattering}",
            ("figure", "before", "after", "chance"),
            [(str(row.get("name")), [_remedied(row, key) for key in ("before", "after", "chance")]) for row in rows],
        )


def _remedied(row: Part, key: str) -> Cell:
    name = str(row.get("name"))
    kinds = {"p-value": words.p_value, "AUC": words.decimal, "links": words.plain}
    shown = next((kind for told, kind in kinds.items() if told in name), words.percent)
    return Cell(shown(row.get(key)), tables.some(words.interval(row.get(f"{key}_interval"), shown)))


def matchers(audit: Part) -> Iterator[Table]:
    """The headline figures of all matchers side by side."""
    others = part(audit, "other_matchers")
    if not others:
        return
    by_name = {str(audit.get("matcher")): audit, **others}
    figures: list[tuple[str, Callable[[Part], Cell]]] = [
        ("verdict", lambda a: _own_level(a, part(audit, "verdict"))),
        *((f"{attack.name}: {_unit(attack)}", _same(attack.name)) for attack in _all_attacks(by_name.values())),
        ("EER, authentic", lambda a: Cell(words.percent(part(a, "relations", "authentic_authentic").get("eer")))),
        (
            "D_sys, same label",
            lambda a: _d_sys(part(a, "relations", "authentic_synthetic")),
        ),
    ]
    yield Table(
        "All matchers. The verdict is the worst of all, the figures elsewhere on this page are the first one's",
        ("figure", *by_name),
        [(label, [shown(found) for found in by_name.values()]) for label, shown in figures],
    )


def _own_level(own: Part, verdict: Part) -> Cell:
    """A matcher's level; what stands in the first one's place is the worst of all, unless `levels` tells its own."""
    return Cell(str(part(verdict, "levels").get(own.get("matcher")) or tried.level(own) or words.DASH))


def _d_sys(values: Part) -> Cell:
    if leakage.too_few(values):
        return Cell(words.DASH, ["too few mated comparisons"])
    return Cell(words.decimal(values.get("d_sys"), 2))


def _all_attacks(audits: Any) -> list[tried.Attack]:
    once = {
        attack.name: attack
        for audit in audits
        for attack in tried.attacks({**audit, "released": {}, "discriminator": {}})
    }
    return list(once.values())


def _unit(attack: tried.Attack) -> str:
    return "right of two" if tried.OF_TWO in attack.found else "found"


def _same(name: str) -> Callable[[Part], Cell]:
    def shown(audit: Part) -> Cell:
        for attack in tried.attacks(audit):
            if attack.name == name:
                return Cell(attack.found.removesuffix(f" {tried.OF_TWO}"), tables.some(attack.interval))
        return Cell(words.DASH)

    return shown
