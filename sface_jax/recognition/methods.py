"""What a config names as `head`: a margin with all that it needs around the logits, such as "adaface(margin=0.4)".

A method has three parts, because the classes may be spread over devices: `init`, numbers that are kept between steps;
`rows`, which sees the global batch once and gives what belongs to its rows; `logits`, which sees any slice of the
classes. To add a margin, write its function in `margins` and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sface_jax.core import specs
from sface_jax.core.errors import UserError
from sface_jax.recognition import margins

State = dict[str, Float[Array, ""]]
Rows = dict[str, Array]


class Method(NamedTuple):
    """A margin, ready for a classifier.

    Attributes:
        init: the state of step 0, float32 scalars by name; empty for most.
        rows: (key, state, own [n], norms [n]) -> (rows, new state, penalty). `own` are the cosines of the global
            batch's rows with their own classes, `norms` the lengths of their embeddings. `rows` holds arrays [n] or
            scalars for `logits`; the penalty is a scalar, weighted, to be added to the cross entropy. Gradients are
            stopped where the method wants none.
        logits: (cosine [n, c], labels [n], rows) -> logits [n, c], on all classes or on a slice of them, with labels
            counted from the slice's first class.
    """

    init: dict[str, float]
    rows: Callable[
        [Key[Array, ""], State, Float[Array, " n"], Float[Array, " n"]], tuple[Rows, State, Float[Array, ""]]
    ]
    logits: Callable[[Float[Array, "n c"], Int[Array, " n"], Rows], Float[Array, "n c"]]


def from_spec(spec: str) -> Method:
    """Makes the method that `config.head` names.

    Args:
        spec: a name of `METHODS`, with options if others than the paper's are wanted.

    Raises:
        UserError: the spec is malformed, or its name or an option is not known, or out of range.
    """
    options = specs.parse(spec)[1]
    for option, value in options.items():
        if isinstance(value, int | float) and (value < 0 or (option == "scale" and not value)):
            raise UserError(f"config.head has {option}={value}: set it above 0")
    return specs.make(spec, METHODS, "config.head")


def softmax(scale: float = 64.0) -> Method:
    """See `margins.softmax`."""
    return _plain(margins.softmax, scale=scale)


def cosface(scale: float = 64.0, margin: float = 0.35) -> Method:
    """See `margins.cosface`."""
    return _plain(margins.cosface, scale=scale, margin=margin)


def arcface(scale: float = 64.0, margin: float = 0.5) -> Method:
    """See `margins.arcface`."""
    return _plain(margins.arcface, scale=scale, margin=margin)


def combined_margin(
    scale: float = 64.0,
    m1: float = 1.0,
    m2: float = 0.5,
    m3: float = 0.0,
    filter_threshold: float = 0.0,
    published: bool = False,
) -> Method:
    """See `margins.combined_margin`."""
    options = {"m1": m1, "m2": m2, "m3": m3, "filter_threshold": filter_threshold, "published": published}
    return _plain(margins.combined_margin, scale=scale, **options)


def elastic_cosface(
    scale: float = 64.0, mean: float = 0.35, std: float | None = None, plus: bool = False, published: bool = False
) -> Method:
    """See `margins.elastic_cosface`; `plus` and `published` are for `margins.elastic_plus`.

    The paper's `std` is 0.05, and 0.025 with "+".
    """
    std = std if std is not None else 0.025 if plus else 0.05
    return _elastic(margins.elastic_cosface, scale, mean, std, plus, published)


def elastic_arcface(
    scale: float = 64.0, mean: float = 0.5, std: float | None = None, plus: bool = False, published: bool = False
) -> Method:
    """See `margins.elastic_arcface`; `plus` and `published` are for `margins.elastic_plus`.

    The paper's `std` is 0.05, and 0.0175 with "+".
    """
    std = std if std is not None else 0.0175 if plus else 0.05
    return _elastic(margins.elastic_arcface, scale, mean, std, plus, published)


def adaface(scale: float = 64.0, margin: float = 0.4, h: float = 0.333, t_alpha: float = 0.01) -> Method:
    """See `margins.adaface` and `margins.adaface_statistics`."""

    def rows(key, state, own, norms):
        mean, std = margins.adaface_statistics(norms, state["mean"], state["std"], t_alpha)
        found = {"norms": jax.lax.stop_gradient(norms), "mean": mean, "std": std}
        return found, {"mean": mean, "std": std}, jnp.zeros(())

    def logits(cosine, labels, rows):
        return margins.adaface(cosine, labels, **rows, scale=scale, margin=margin, h=h)

    return Method({"mean": 20.0, "std": 100.0}, rows, logits)


def magface(
    scale: float = 64.0,
    lower_norm: float = 10.0,
    upper_norm: float = 110.0,
    lower_margin: float = 0.45,
    upper_margin: float = 0.8,
    penalty: float = 35.0,
    published: bool = False,
) -> Method:
    """See `margins.magface`; `penalty` weights `margins.magface_penalty`."""
    if lower_norm >= upper_norm:
        raise UserError(f"config.head: magface wants lower_norm={lower_norm} below upper_norm={upper_norm}")

    def rows(key, state, own, norms):
        return {"norms": norms}, state, penalty * margins.magface_penalty(norms, lower_norm, upper_norm)

    def logits(cosine, labels, rows):
        limits = lower_norm, upper_norm, lower_margin, upper_margin
        return margins.magface(cosine, labels, rows["norms"], scale, *limits, published)

    return Method({}, rows, logits)


def curricularface(scale: float = 64.0, margin: float = 0.5, momentum: float = 0.99, published: bool = False) -> Method:
    """See `margins.curricularface`; `momentum` is for `margins.curricular_t`."""

    def rows(key, state, own, norms):
        t = margins.curricular_t(state["t"], own, momentum)
        return {"t": t, "own": jax.lax.stop_gradient(own)}, {"t": t}, jnp.zeros(())

    def logits(cosine, labels, rows):
        return margins.curricularface(cosine, labels, **rows, scale=scale, margin=margin, published=published)

    return Method({"t": 0.0}, rows, logits)


METHODS: dict[str, Callable[..., Method]] = {
    make.__name__: make
    for make in (
        softmax,
        cosface,
        arcface,
        combined_margin,
        elastic_cosface,
        elastic_arcface,
        adaface,
        magface,
        curricularface,
    )
}


def _plain(function: Callable[..., Array], **options: Any) -> Method:
    """A margin that looks at nothing but cosines and labels."""
    return Method(
        {},
        lambda key, state, own, norms: ({}, state, jnp.zeros(())),
        lambda cosine, labels, rows: function(cosine, labels, **options),
    )


def _elastic(
    function: Callable[..., Array], scale: float, mean: float, std: float, plus: bool, published: bool
) -> Method:
    """A margin drawn anew for every row of every batch."""

    def rows(key, state, own, norms):
        drawn = mean + std * jax.random.normal(key, own.shape)
        return {"margins": margins.elastic_plus(drawn, own, published) if plus else drawn}, state, jnp.zeros(())

    return Method({}, rows, lambda cosine, labels, rows: function(cosine, labels, scale, rows["margins"]))
