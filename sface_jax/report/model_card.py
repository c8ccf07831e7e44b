"""The model card of a recogniser: what a person who is handed the network must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sface_jax.report import tried, words
from sface_jax.report.tried import Part, part

_CARD = """\
# Face recogniser `{name}`

{architecture}, embeddings of {size} dimensions. A picture enters as {side} x {side} pixels, {order}, (picture / 255 -
{mean}) / {std}; the face is aligned to the {alignment} template.

## How it was trained

On {classes} identities, {pictures} pictures, {data}. {loss} {steps} steps of {batch} pictures, seed {seed}.

## Accuracy

{accuracy}

## Privacy

{privacy}

## Intended use

Research on face recognition with synthetic data: comparing two pictures (1:1) of people who agreed to that.
Not intended: identifying people without their knowledge, surveillance, judging anybody's traits, or any decision about
a person that no person reviews.

## Limits

- Accuracy was measured on the benchmarks above alone. Error rates between groups of people, by age, sex or skin, were
  not: measure them on your own people before any use.
- What a threshold lets through elsewhere must be measured there; cosines of two recognisers do not compare.
- It learned whoever is frequent in its training set, or in the one its generator or teacher learned.

## Licence

To be set by whoever releases it. The terms of the training pictures, and of those that generator and teacher learned,
limit what can be chosen.
"""


def write(
    name: str,
    network: Mapping[str, Any],
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    verified: Mapping[str, Any],
    audits: Mapping[str, Mapping[str, Any]],
) -> str:
    """Returns the card, in Markdown.

    Args:
        name: of the network.
        network: its `network.json`.
        config: of the stage that trained it.
        result: of that stage: `classes`, `pictures`, `steps`.
        verified: its file in `verification/`, empty where it was not verified.
        audits: folder -> `audit.json` of each audit of the run.
    """
    architecture, preprocessing, training = (
        part(network, key) for key in ("architecture", "preprocessing", "training")
    )
    channels = {key: ", ".join(f"{value:g}" for value in preprocessing.get(key, ())) for key in ("mean", "std")}
    return _CARD.format(
        name=name,
        architecture=_architecture(architecture),
        size=architecture.get("embedding_size", "?"),
        side=preprocessing.get("size", "?"),
        order=str(preprocessing.get("channel_order", "rgb")).upper(),
        mean=f"({channels['mean']})",
        std=f"({channels['std']})",
        alignment=preprocessing.get("alignment", "arcface"),
        accuracy=_accuracy(verified),
        privacy=_privacy(name, config, audits),
        **_training(config, result),
    )


def _architecture(found: Part) -> str:
    blocks = "-".join(map(str, found.get("blocks", ())))
    widths = ", ".join(map(str, found.get("widths", ())))
    kind = {"iresnet": "iResNet", "mobilefacenet": "MobileFaceNet"}.get(
        found.get("kind"), str(found.get("kind", "Network"))
    )
    return f"{kind}{f', blocks {blocks}' if blocks else ''}{f', widths {widths}' if widths else ''}"


def _training(config: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    data = str(config.get("dataset", ""))
    teacher = str(config.get("teacher")).rpartition("/")[2]
    losses = {
        "classification_weight": f"`{config.get('head')}` on their labels",
        "distillation_weight": f"mean squared error to the embeddings of the teacher `{teacher}`",
    }
    taken = [f"{told}, weight {config[key]:g}" for key, told in losses.items() if config.get(key)]
    return {
        "classes": words.count(training.get("classes")),
        "pictures": words.count(training.get("pictures")),
        "data": f"split `{config.get('split')}` of the dataset `{data.rpartition('/')[2]}`",
        "loss": f"Loss: {' and '.join(taken)}." if taken else "",
        "steps": words.count(training.get("steps")),
        "batch": config.get("batch_size", words.DASH),
        "seed": config.get("seed", words.DASH),
    }


def _accuracy(verified: Mapping[str, Any]) -> str:
    rows = []
    for benchmark, found in verified.get("benchmarks", {}).items():
        if words.finite(found.get("accuracy")):
            ends = words.interval(part(found, "interval_95").get("accuracy"), words.percent)
            spread = (
                f"{words.percent(found['accuracy'])} ± {100 * found['std']:.1f}"
                if words.finite(found.get("std"))
                else ""
            )
            tar = words.percent(found.get("tar_at_far_1e-3"))
            rows.append(f"| {benchmark} | {words.count(found.get('pairs'))} | {spread} | {ends} | {tar} |")
    if not rows:
        return "It has not been verified: this card states no accuracy."
    head = "| benchmark | pairs | accuracy, ± over folds | 95 % interval, over people | TAR at FAR 1e-3 |"
    return "\n".join([head, "|---|---|---|---|---|", *rows]).replace(words.UNIT, " %")


def _privacy(name: str, config: Mapping[str, Any], audits: Mapping[str, Mapping[str, Any]]) -> str:
    told = []
    if config.get("distillation_weight"):
        told.append("Its teacher may have seen photographs of people; what it knew of them the student may tell.")
    for folder, audit in audits.items():
        found = part(audit, "released", "networks", name)
        if words.finite(found.get("auc")):
            line = f"By its embeddings alone members were told from held-out people with an AUC of {_auc(found)}"
            centre = part(found, "attacks", "class_centre")
            if words.finite(centre.get("auc")):
                line += f", with its classifier of {_auc(centre)}"
                if tried.above(centre, 0.5):
                    line += ": hand it on without that"
            told.append(f"{line} (0.5 is chance; `{folder}/index.html` has all of it).")
    if len(told) < 1 + bool(config.get("distillation_weight")):
        told.append("No audit of this network was made: `--config.released` of configs/privacy.py makes one.")
    return " ".join(told)


def _auc(found: Part) -> str:
    ends = words.interval(found.get("interval"), words.decimal)
    return f"{words.decimal(found['auc'])}{f' ({ends})' if ends else ''}"
