"""Another preprocessing than the one that a network says of itself, in the words of `config.preprocessing`."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from sface_jax.core.errors import UserError
from sface_jax.recognition.network import Network, Preprocessing

ORDERS = ("rgb", "bgr")

Colour = tuple[float, float, float]


class Normalisation(NamedTuple):
    """(picture / 255 - mean) / std, colour by colour: red, green, blue, whatever the order of the channels."""

    mean: Colour
    std: Colour


def _less(red: float, green: float, blue: float) -> Normalisation:
    """0..255 less a mean in that unit."""
    return Normalisation((red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255))


NORMALISATIONS: dict[str, Normalisation] = {
    # [-1, 1]: InsightFace's arcface_torch
    "arcface": Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # (x - 127.5) / 128: SphereFace, CosFace, and FaceNet's fixed standardisation
    "facenet": Normalisation((0.5, 0.5, 0.5), (128 / 255, 128 / 255, 128 / 255)),
    # mean and deviation of ImageNet's colours: torchvision's models
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # [0, 1]: torchvision's ToTensor alone
    "unit": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    # 0..255: InsightFace's networks for MXNet, which normalise by themselves
    "raw": _less(0.0, 0.0, 0.0),
    # ImageNet's mean taken off: Caffe's networks (Simonyan and Zisserman, arXiv:1409.1556), most of which want bgr
    "caffe": _less(123.68, 116.779, 103.939),
    # the mean face of VGGFace2 taken off (Cao et al., arXiv:1710.08092)
    "vggface2": _less(131.0912, 103.8827, 91.4953),
}
"""The normalisations that a config can name."""


def override(network: Network, words: str) -> Network:
    """Gives a network another preprocessing.

    Args:
        network: the recogniser.
        words: a name of `NORMALISATIONS`, "rgb" or "bgr", or one of each, apart by blanks; what they do not tell stays
            as the network says of itself. A mean and deviation go with their colour: another order moves them along.

    Raises:
        UserError: a word is unknown, or two are of one kind.
    """
    chosen = words.split()
    unknown = [word for word in chosen if word not in NORMALISATIONS and word not in ORDERS]
    if unknown:
        known = ", ".join((*NORMALISATIONS, *ORDERS))
        raise UserError(f"config.preprocessing has no word {unknown[0]!r}: choose from {known}")
    named = [word for word in chosen if word in NORMALISATIONS]
    orders = [word for word in chosen if word in ORDERS]
    if len(named) > 1 or len(orders) > 1:
        raise UserError(f"config.preprocessing is {words!r}: name one normalisation and one order of channels at most")
    preprocessing = network.preprocessing
    colours = NORMALISATIONS[named[0]] if named else normalisation(preprocessing)
    return dataclasses.replace(network, preprocessing=prepared(preprocessing, colours, *orders))


def normalisation(preprocessing: Preprocessing) -> Normalisation:
    """The mean and deviation of a preprocessing, by colours."""
    step = _step(preprocessing.channel_order)
    return Normalisation(preprocessing.mean[::step], preprocessing.std[::step])


def prepared(preprocessing: Preprocessing, colours: Normalisation, order: str = "") -> Preprocessing:
    """The preprocessing with this mean and deviation, and this order of channels where one is given."""
    order = order or preprocessing.channel_order
    mean, std = (values[:: _step(order)] for values in colours)
    return dataclasses.replace(preprocessing, mean=mean, std=std, channel_order=order)


def name(colours: Normalisation) -> str:
    """The word for a mean and deviation, or the numbers."""
    found = next((word for word, known in NORMALISATIONS.items() if _near(colours, known)), "")
    return found or f"mean {_told(colours.mean)} std {_told(colours.std)}"


def _step(order: str) -> int:
    return -1 if order == "bgr" else 1


def _near(a: Normalisation, b: Normalisation) -> bool:
    return all(abs(x - y) < 1e-6 for of_a, of_b in zip(a, b, strict=True) for x, y in zip(of_a, of_b, strict=True))


def _told(values: Colour) -> str:
    return "/".join(f"{value:.4g}" for value in values)
