"""What a compiled program costs, read off the program: exact on any machine, and without running it."""

from __future__ import annotations

import math
import re
from typing import Any

_COLLECTIVE = re.compile(
    r"= (?P<shapes>\(?[a-z0-9]+\[.*?) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b(?:pred|bf16|[sufc]\d+)\[([\d,]*)\]")
_BITS = re.compile(r"\b(pred|bf16|[sufc]\d+)\[")


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


def _collective_bytes(program: str) -> int:
    total = 0
    for found in _COLLECTIVE.finditer(program):
        arrays = list(zip(_BITS.findall(found["shapes"]), _ARRAY.findall(found["shapes"]), strict=True))
        if found["start"] and found["kind"] in ("all-gather", "collective-permute"):
            arrays = arrays[len(arrays) // 2 :]  # the operands come first
        for kind, dimensions in arrays:
            bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
            total += math.prod(int(d) for d in dimensions.split(",") if d) * bits // 8
    return total
