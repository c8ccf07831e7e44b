"""Specs: what a config names with its options in one string, such as "cosface(scale=64.0, margin=0.35)"."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sface_jax.core.errors import UserError


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Splits a spec into its name and its options.

    Args:
        spec: "name" or "name(option=value, ...)"; values are Python literals.

    Raises:
        UserError: it is written in another way.
    """
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
            if len(options) == len(call.keywords):
                return call.func.id, options
    except (SyntaxError, ValueError):
        pass
    raise UserError(
        f'{spec!r} is not understood: write "name" or "name(option=value, ...)"; several of them as "(\'a\', \'b\')"'
    )


def make(spec: str, known: Mapping[str, Callable[..., Any]], key: str) -> Any:
    """Calls what a spec names with its options.

    Args:
        spec: see `parse`.
        known: name -> function of keyword arguments.
        key: the config key that holds the spec, for the error line.

    Raises:
        UserError: the spec is malformed, or its name or one of its options is not known.
    """
    name, options = parse(spec)
    if name not in known:
        raise UserError(f"{key} names {name!r}: choose from {', '.join(known)}")
    allowed = inspect.signature(known[name]).parameters
    for option, value in options.items():
        if option not in allowed:
            raise UserError(f"{key}: {name} has no option {option!r}: it has {', '.join(allowed) or 'none'}")
        options[option] = _suited(value, allowed[option].default, f"{key}: {name}'s {option}")
    return known[name](**options)


def _suited(value: Any, default: Any, what: str) -> Any:
    """The value in the type of the default; where that is None, any number will do."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool) and isinstance(value, bool):
        return value
    if number and isinstance(default, float | None):
        return float(value)
    if number and not isinstance(default, bool | str) and value == int(value):
        return int(value)
    kind = {bool: "True or False", int: "a whole number"}.get(type(default), "a number")
    raise UserError(f"{what} is {value!r}: it must be {kind}")
