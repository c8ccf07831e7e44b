"""What a program costs, read off the program: exact on any machine, and without running it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

_COLLECTIVE = re.compile(
    r"= (?P<shapes>\(?[a-z0-9]+\[.*?) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b(?P<kind>pred|bf16|[sufc]\d+)\[(?P<dimensions>[\d,]*)\]")


def of(compiled: Any) -> dict[str, float]:
    """Reads the costs of a program for one of its devices.

    Args:
        compiled: from `jax.jit(...).lower(...).compile()`.

    Returns:
        "flops" as XLA counts them; "memory", the bytes that arguments, results and temporaries take at once (what is
        donated counts once); "temporaries", their share of it; "collectives", the bytes that collectives produce.
    """
    analysis = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "flops": float(analysis.get("flops", math.nan)),
        "memory": float(held + memory.temp_size_in_bytes),
        "temporaries": float(memory.temp_size_in_bytes),
        "collectives": float(_collective_bytes(compiled.as_text())),
    }


def collectives(compiled: Any) -> dict[str, dict[str, Any]]:
    """The collectives of a program by kind.

    Args:
        compiled: from `jax.jit(...).lower(...).compile()`.

    Returns:
        kind, such as "all-gather" -> how many there are ("count"), the bytes they produce on a device ("bytes") and the
        largest array among their results ("largest", as XLA writes it: "f32[512,64]").
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, arrays in _collectives(compiled.as_text()):
        told = found.setdefault(kind, {"count": 0, "bytes": 0, "largest": "", "largest_bytes": 0})
        told["count"] += 1
        for array, size in arrays:
            told["bytes"] += size
            if size > told["largest_bytes"]:
                told["largest"], told["largest_bytes"] = array, size
    return found


def _collective_bytes(program: str) -> int:
    return sum(size for _, arrays in _collectives(program) for _, size in arrays)


def _collectives(program: str) -> list[tuple[str, list[tuple[str, int]]]]:
    """Kind and resulting arrays, with their bytes, of each collective."""
    found = []
    for match in _COLLECTIVE.finditer(program):
        arrays = [(array[0], _bytes(array)) for array in _ARRAY.finditer(match["shapes"])]
        if match["start"] and match["kind"] in ("all-gather", "collective-permute"):
            arrays = arrays[len(arrays) // 2 :]  # the operands come first
        found.append((match["kind"], arrays))
    return found


def _bytes(array: re.Match[str]) -> int:
    bits = 8 if array["kind"] == "pred" else int(re.sub(r"\D", "", array["kind"]))
    return math.prod(int(d) for d in array["dimensions"].split(",") if d) * bits // 8


def products(function: Callable[..., Any], *arguments: Any) -> float:
    """The floating-point operations of a function's convolutions and matrix products, counted from its definition.

    A multiplication and an addition are two. Everything else that a network does is small beside them.

    Args:
        function: as `jax.jit` takes it, of a network's evaluation, without loops.
        *arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _products(jax.make_jaxpr(function)(*arguments).jaxpr)


def _products(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += 2 * out * math.prod(kernel) / kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        elif "branches" in equation.params:  # of one function, written for several platforms: the last is the general
            total += _products(equation.params["branches"][-1].jaxpr)
        else:
            inner = [value for value in equation.params.values() if isinstance(value, ClosedJaxpr | Jaxpr)]
            total += sum(_products(getattr(value, "jaxpr", value)) for value in inner[:1])
    return total
