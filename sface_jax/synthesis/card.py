"""The dataset card: what a person who is handed the dataset must know."""

from __future__ import annotations

from typing import Any

from sface_jax.synthesis.sampling import STRATEGIES

_OF_SFACE = ("free", "shared_seeds")

_LIKENESS = """
  Here pictures were also **chosen by their likeness** to the authentic pictures of their class."""

_CARD = """\
# Synthetic faces: {classes:,} classes, {pictures:,} pictures

Every picture in this dataset was drawn by a generative network. None is a photograph. What they give away all the
same, and how they are to be handled: see [Privacy](#privacy).
{per_class:,} pictures of {image_size} x {image_size} pixels in each of {classes:,} classes, split `train`.

![Some classes, one a row](preview.png)

## How it was made

A class-conditional StyleGAN2 generator was trained on {source}.
Each identity of that training set is one class. The generator was then given a class and a random latent for each
picture. This is the method of SFace (Boutros et al., IJCB 2022, arXiv 2206.10520){departure}.

| | |
|---|---|
| generator | training step {step}, SHA-256 of its weights `{sha256}` |
| strategy | `{strategy}`: {sampling} |
| truncation psi | {psi} |
| noise | {noise} |
| rejection | {rejection} |
| seed | {seed} |

Picture i of class c depends on the seed, c and i alone{and_attempts}.
`manifest.json` holds the same facts for programs, and the SHA-256 of each shard.

## How to read it

    import tensorflow_datasets as tfds
    source = tfds.builder_from_directory("<this folder>").as_data_source("train")
    source[0]  # {{"image": uint8 [{image_size}, {image_size}, 3], "label": int, "name": "{first}"}}

Labels are 0 to {last}, and label c is number c of the training set's identities: whoever holds that list can look it
up. Names of classes tell no more than that.

## Intended use

Training and studying face recognition, within what section Privacy allows.
Not intended: identifying people, building profiles, or passing the pictures off as photographs of someone.

## Limits

- **Synthetic is not anonymous.** Class c was learned from one authentic identity, and its pictures resemble that
  person: section Privacy says how far, where it was measured. A generator may also repeat what it was shown.{likeness}
- Classes are less distinct, and pictures within a class less alike, than those of authentic people.
- The generator passes on the make-up of its training set: who is frequent there is frequent here.
- Recognisers trained on this dataset alone are less accurate than those trained on authentic pictures.

## Privacy

No audit of this dataset has been made: this card states no privacy figure. The `privacy` stage measures how well
synthetic pictures can be linked to authentic identities, and how well members of the training set can be told from
others, and writes its figures here. Let it do so before you release the dataset.

## Licence

{licence} The licence and the consent under which the authentic training pictures were obtained may
limit what can be chosen.
"""


def write(recipe: dict[str, Any], counts: dict[str, int], licence: str = "") -> str:
    """Returns the card, in Markdown, of a dataset made by the recipe of its manifest.

    Args:
        recipe: see `recipe.write`.
        counts: how many pictures were "accepted_at_once", "redrawn" and "forced"; empty without rejection.
        licence: under which the dataset is released; empty where that is still to be set.
    """
    rejection = recipe["rejection"]
    return _CARD.format(
        **{key: recipe[key] for key in ("classes", "pictures", "per_class", "image_size", "psi", "noise", "seed")},
        **{key: recipe["generator"][key] for key in ("step", "sha256")},
        source=_source(recipe["generator"]["trained_on"]),
        departure="" if recipe["strategy"] in _OF_SFACE and not rejection else ", sampled in another way",
        strategy=recipe["strategy"],
        sampling=STRATEGIES[recipe["strategy"]].words.format(**recipe),
        rejection=_rejection(rejection, counts) if rejection else "none",
        and_attempts=", given the recogniser that rejects" if rejection else "",
        likeness=_LIKENESS if rejection and _uses_centres(rejection) and rejection["centres"] == "authentic" else "",
        licence=f"{licence}." if licence else "To be set by whoever releases the dataset.",
        first="synthetic-000000/000000",
        last=recipe["classes"] - 1,
    )


def _rejection(rejection: dict[str, Any], counts: dict[str, int]) -> str:
    conditions, centres = [], ""
    if (least := rejection["min_class_similarity"]) > 0:
        conditions.append(f"at least {least} with the centre of its class")
    if (most := rejection["max_other_similarity"]) < 1:
        conditions.append(f"at most {most} with the centre of any other class")
    if (most := rejection["max_authentic_similarity"]) < 1:
        conditions.append(f"at most {most} with any authentic picture of its class")
    if _uses_centres(rejection):
        synthetic = rejection["centres"] == "synthetic"
        those = f"{rejection['centre_pictures']:,} other synthetic" if synthetic else "the authentic"
        centres = f"; a centre is the mean direction of {those} pictures of the class"
    return (
        f"every picture was drawn up to {rejection['attempts']} times, until a recogniser (SHA-256 of its weights "
        f"`{rejection['recognizer']['sha256']}`) found its cosine {' and '.join(conditions)}{centres}. "
        f"Accepted at once: {counts['accepted_at_once']:,}; drawn again: {counts['redrawn']:,}; kept though no "
        f"attempt passed: {counts['forced']:,} (negative in `attempts/`)"
    )


def _uses_centres(rejection: dict[str, Any]) -> bool:
    return rejection["min_class_similarity"] > 0 or rejection["max_other_similarity"] < 1


def _source(trained_on: dict[str, Any] | None) -> str:
    if trained_on is None:
        return "pictures that are not known here"
    kind = "faces drawn by a program, which show no person" if trained_on["procedural"] else "authentic face pictures"
    return f"{trained_on['pictures']:,} {kind}, of {trained_on['identities']:,} identities"
