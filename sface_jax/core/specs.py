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
            return call.func.id, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        pass
    raise UserError(f'{spec!r} is not understood: write "name" or "name(option=value, ...)"')


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
        if isinstance(allowed[option].default, float) and type(value) is int:
            options[option] = float(value)
    return known[name](**options)
