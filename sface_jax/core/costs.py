"""What a program costs, read off the program: exact on any machine, and without running it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from sface_jax.core import hlo
from sface_jax.core.chips import Chip


def of(compiled: Any, text: str = "") -> dict[str, Any]:
    """Reads the costs of a program for one of its devices.

    Args:
        compiled: from `jax.jit(...).lower(...).compile()`.
        text: of the program, where `compiled.as_text()` does not give it.

    Returns:
        "flops" as XLA counts them, but loops and branches as `hlo.read` does; "passes" and "integers", how much of that
        a TPU does in passes of bfloat16 and in 8-bit integers; "traffic", bytes between memory and processor;
        "cycles" as XLA's compiler for TPUs estimates them, else 0; all of `memory`; "collectives", the bytes that
        collectives produce; "wire", the bytes that they send; "kinds", see `collectives`; "unknown_loops", loops that
        may run more often than they were counted.
    """
    analysis, text = compiled.cost_analysis() or {}, text or compiled.as_text()
    work, counted = hlo.read(text), hlo.read(text, as_xla=True)
    flops = float(analysis.get("flops", counted.products))  # XLA leaves it out where it is zero
    if counted.products:
        flops *= work.products / counted.products
    elif counted.traffic:  # no product to be seen, as in a GPU's custom calls
        flops *= work.traffic / counted.traffic
    share = flops / work.products if work.products else 0.0
    return {
        "flops": flops,
        "passes": share * work.passes if work.products else flops,
        "integers": share * work.integers,
        "traffic": work.traffic,
        "cycles": work.cycles,
        **memory(compiled),
        "collectives": float(sum(times * array.size for one, times in work.collectives for array in one.results)),
        "wire": float(sum(times * one.wire for one, times in work.collectives)),
        "kinds": _by_kind(work),
        "unknown_loops": float(work.unknown),
    }


def memory(compiled: Any) -> dict[str, float]:
    """The memory that a program takes of one of its devices; told at once, where `of` reads the whole program.

    Args:
        compiled: from `jax.jit(...).lower(...).compile()`.

    Returns:
        "memory", the bytes that arguments, results, temporaries and code take at once (what is donated counts once);
        "arguments" and "temporaries", their shares of it.
    """
    of = compiled.memory_analysis()
    held = of.argument_size_in_bytes + of.output_size_in_bytes - of.alias_size_in_bytes
    return {
        "memory": float(held + of.temp_size_in_bytes + of.generated_code_size_in_bytes),
        "arguments": float(of.argument_size_in_bytes),
        "temporaries": float(of.temp_size_in_bytes),
    }


def collectives(compiled: Any) -> dict[str, dict[str, Any]]:
    """The collectives of a program by kind.

    Args:
        compiled: from `jax.jit(...).lower(...).compile()`.

    Returns:
        kind, such as "all-gather" -> how many there are ("count"), the bytes they produce on a device ("bytes"), those
        that it sends ("wire"), and the largest array among their results ("largest", as XLA writes it: "f32[512,64]").
    """
    return _by_kind(hlo.read(compiled.as_text()))


def _by_kind(work: hlo.Work) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one, times in work.collectives:
        told = found.setdefault(one.kind, {"count": 0, "bytes": 0, "wire": 0.0, "largest": "", "largest_bytes": 0})
        told["count"] += times
        told["wire"] += times * one.wire
        for array in one.results:
            told["bytes"] += times * array.size
            if array.size > told["largest_bytes"]:
                told["largest"], told["largest_bytes"] = array.text, array.size
    return found


def seconds(cost: dict[str, Any], chip: Chip) -> dict[str, float]:
    """The least time that a program takes on a chip, by what it is short of: the sides of the roofline.

    Each side is what is done at the best that the chip can do, the others being free. A product of float32 counts as
    one of bfloat16, or as the passes its precision asks for: what JAX's default precision makes of it on a TPU. The
    estimate adds up what XLA's compiler expects of each operation, padding and copies included, and the collectives,
    as if none of them ran beside other work; operations that the compiler has no estimate for are not in it.

    Args:
        cost: see `of`.
        chip: the device.

    Returns:
        "compute", "memory" and "collectives"; "least", the highest of them; and, where the compiler counts cycles,
        "estimated". In seconds.
    """
    sides = {
        "compute": cost["passes"] / (1e12 * chip.tflops) + cost["integers"] / (1e12 * chip.int8_tops),
        "memory": cost["traffic"] / (1e9 * chip.memory_gbps),
        "collectives": cost["wire"] / (1e9 * chip.link_gbps),
    }
    told = sides | {"least": max(sides.values())}
    if cost["cycles"] and chip.clock_ghz:
        busy = cost["cycles"] / (1e9 * chip.clock_ghz) + sides["collectives"]
        told["estimated"] = max(busy, told["least"])
    return told


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
