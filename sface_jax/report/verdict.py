"""The answers in plain words, composed from the figures; nothing is said that was not measured."""

from __future__ import annotations

import dataclasses

from sface_jax.report import tried, words
from sface_jax.report.findings import Findings
from sface_jax.report.leakage import Leakage
from sface_jax.report.tried import UNTESTED
from sface_jax.report.utility import Benchmark


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question's answer: `figure` and `unit` are shown large; `tone` is "good", "warn" or "plain"."""

    question: str
    figure: str
    unit: str
    text: str
    tone: str
    badge: str = ""


def useful(benchmarks: list[Benchmark]) -> Answer | None:
    """How well the recognisers trained on synthetic faces do, from the first benchmark."""
    if not benchmarks:
        return None
    benchmark = benchmarks[0]
    best, ceiling, plain = benchmark.best, benchmark.ceiling, benchmark.find("classification")
    if best is None:
        if ceiling is None:
            return None
        text = f"of pairs of {benchmark.label} judged rightly after training on authentic pictures ({ceiling.label})."
        teacher = benchmark.find("teacher")
        if teacher is not None and teacher is not ceiling:
            text += f" Its teacher: {words.percent(teacher.accuracy)}."
        text += " Chance is 50 %."
        return Answer("Useful?", words.percent(ceiling.accuracy), "accuracy", text, "plain")
    text = f"of pairs of {benchmark.label} judged rightly by the best strategy on synthetic faces ({best.label})."
    if plain is not None and best is not plain:
        text += f" Without a teacher's help: {words.percent(plain.accuracy)}."
    if ceiling is not None:
        text += f" Trained on authentic faces: {words.percent(ceiling.accuracy)}."
    return Answer("Useful?", words.percent(best.accuracy), "accuracy", f"{text} Chance: 50 %.", "plain")


def private(leakage: Leakage | None) -> Answer | None:
    """Whether synthetic pictures give away the authentic identities they were drawn from."""
    if leakage is None:
        return None
    rate, level = leakage.headline, leakage.verdict.get("level", "")
    findings = leakage.verdict.get("findings", [])
    decisive = [found["name"] for found in findings if found["level"] == level]
    told = level.startswith("not detected") or not findings or "match rate" in decisive
    if rate is None or level == UNTESTED or not told:
        # a match rate that shows nothing must not stand large where another attack has found something
        return Answer("Private?", level.capitalize(), "", leakage.verdict.get("summary", ""), leakage.tone)
    text = (
        f"At a threshold where {words.one_in(rate.fmr)} pairs of authentic strangers match, "
        f"{words.percent(rate.rate)} of the pairs of a synthetic and an authentic picture of one label do."
    )
    badge = "no link detected at this power" if level.startswith("not detected") else level
    return Answer("Private?", words.ratio(rate.ratio), "chance", text, leakage.tone, badge)


def summary(findings: Findings, benchmarks: list[Benchmark]) -> str:
    """One paragraph for a reader who reads nothing else."""
    sentences = []
    train = findings.counts.get("splits", {}).get("train", {})
    people = "procedural identities (drawn by a program; no person exists)" if findings.procedural else "identities"
    if train and not (findings.recipe or findings.gan_log):
        sentences.append(
            f"Recognisers were trained on {words.count(train.get('pictures'))} authentic pictures of "
            f"{words.count(train.get('identities'))} {people}."
        )
    elif train:
        sentences.append(
            f"A generator learned from {words.count(train.get('pictures'))} pictures of "
            f"{words.count(train.get('identities'))} {people}"
            + (f" and drew {words.count(findings.recipe['pictures'])} new ones." if findings.recipe else ".")
        )
    if benchmarks and benchmarks[0].best is not None:
        tested = "identities that nothing was trained on" if benchmarks[0].held_out else benchmarks[0].label
        sentences.append(f"Recognisers that saw only synthetic pictures were tested on {tested}.")
    sets = findings.audit.get("sets", {})
    if {"members", "synthetic"} <= sets.keys():
        members, heldout = sets["members"], sets.get("heldout")
        sentence = (
            f"An audit compared {words.count(sets['synthetic'].get('pictures'))} synthetic pictures with "
            f"{words.count(members.get('pictures'))} authentic ones of "
            f"{words.count(members.get('identities'))} identities"
        )
        if heldout:
            sentence += f", and with {words.count(heldout.get('identities'))} identities that the generator never saw"
        sentences.append(sentence + ".")
    return " ".join(sentences)


def title(benchmarks: list[Benchmark], leakage: Leakage | None) -> str:
    """The question that this report answers."""
    if benchmarks and not leakage and benchmarks[0].best is None:
        return "How good are these recognisers?"
    asked = [word for word, there in (("useful", benchmarks), ("private", leakage)) if there]
    if not asked:
        return "Synthetic faces"
    return f"How {' and how '.join(asked)} are these synthetic faces?"


def limits(leakage: Leakage) -> list[str]:
    """What bounds the audit's figures."""
    found = list(leakage.verdict.get("caveats", []))
    if leakage.mated_pairs:
        found.append(
            f"Of {words.count(leakage.mated_pairs)} pairs of one label none might match, and "
            f"{words.percent(3 / leakage.mated_pairs)} of such pairs could still do so elsewhere (rule of three); as "
            "pairs share identities, the true bound is higher."
        )
    return found


def not_claimed(findings: Findings) -> list[str]:
    """What the audit's figures must not be read as."""
    claims = [
        "That the pictures are anonymous: the audit says what its attacks found, not that nothing is to be found."
    ]
    attacked = tried.part(findings.audit, "released", "networks")
    if {"distillation", "combined"} & {*findings.verification, *findings.recognition_logs}:
        claims.append(
            "That the recognisers are safe to release. The teacher saw the authentic pictures, so what it taught "
            "(distillation, combined) is a second way for them to leak, "
            + (
                "which the audit attacks: see its own page."
                if attacked
                else "and this page's audit does not measure it: the cards in recognition/ say whether another one did."
            )
        )
    if findings.procedural:
        claims.append(
            "Anything about real people. On procedural faces nobody's privacy is at stake: the figures show what the "
            "audit sees, and do not carry over to photographs."
        )
    return claims
