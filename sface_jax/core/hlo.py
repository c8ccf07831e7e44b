"""What a compiled program does, read off its text: loops count as often as they run, each collective once."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
KINDS += ("collective-broadcast",)

_HEAD = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[^\s(]+) \(.*\{$")
_LINE = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[^\s=]+) = (?P<rest>.*)$")
_ARRAY = re.compile(r"\b(?P<kind>pred|bf16|[sufc]\d+)\w*\[(?P<dimensions>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")
_TRIPS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r"%([\w.\-]+)")

# Named without being done: addresses, constants, and the ends of what was counted when it began.
_NOTHING = frozenset({"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota", "while"})
_NOTHING |= {"conditional", "call", "copy-done", "slice-done", "async-start", "async-update", "async-done"}
_PASSES = {"high": 3, "highest": 6}  # products of bfloat16 that stand for one of float32
_SLICES = frozenset({"dynamic-slice", "slice", "gather"})  # read as much as they give


class Array(NamedTuple):
    """An array of a program.

    Attributes:
        text: its kind and shape as XLA writes them: "f32[512,64]".
        size: its bytes.
        near: whether it lies beside the processor (a TPU's VMEM) and not in the device's memory.
    """

    text: str
    size: int
    near: bool


class Collective(NamedTuple):
    """Devices that exchange arrays.

    Attributes:
        kind: one of `KINDS`.
        group: devices that take part together.
        results: what each of them gets.
        wire: bytes that each of them sends where a ring of n does it: of S bytes put together, 2 (n-1)/n S for an
            all-reduce, (n-1)/n S for an all-gather, a reduce-scatter and an all-to-all, S for a permutation.
    """

    kind: str
    group: int
    results: tuple[Array, ...]
    wire: float


class Work(NamedTuple):
    """What one device does.

    Attributes:
        cycles: XLA's own estimate, operation by operation; 0 where the compiler tells none.
        traffic: bytes between the device's memory and the processor; what stays beside the processor does not count.
        products: operations of convolutions and matrix products, with what they multiply of padding; custom calls, in
            which a GPU hides them, are not looked into.
        passes: the same as a TPU does them: float32 at full precision is six products of bfloat16, at high precision
            three; integers are left out.
        integers: those of them that are of 8-bit integers.
        collectives: each with how often it happens.
        unknown: loops of which the program does not tell how often they run; these are counted once.
    """

    cycles: float = 0.0
    traffic: float = 0.0
    products: float = 0.0
    passes: float = 0.0
    integers: float = 0.0
    collectives: tuple[tuple[Collective, int], ...] = ()
    unknown: int = 0

    def and_then(self, other: Work, times: int = 1) -> Work:
        """This, and the other so many times."""
        return Work(
            self.cycles + times * other.cycles,
            self.traffic + times * other.traffic,
            self.products + times * other.products,
            self.passes + times * other.passes,
            self.integers + times * other.integers,
            self.collectives + tuple((one, times * count) for one, count in other.collectives),
            self.unknown + other.unknown,
        )


@dataclass(frozen=True)
class _Instruction:
    kind: str
    type: str
    arguments: str
    attributes: str
    root: bool

    @property
    def operands(self) -> list[str]:
        """The names of what it takes."""
        return _NAME.findall(self.arguments)

    def called(self, role: str) -> list[str]:
        """The computations named in a role, such as "body"."""
        found = re.search(rf"\b{role}=(\{{[^}}]*\}}|%[\w.\-]+)", self.attributes)
        return _NAME.findall(found[1]) if found else []


_Computation = dict[str, _Instruction]


def read(text: str, as_xla: bool = False) -> Work:
    """Reads what one device does in a run of a program.

    Loops count as often as they run, where the program tells. Of the branches of a condition that multiply anything
    the cheapest counts, of others the dearest: what a program skips is the padding, and what it is spared is usual.

    Args:
        text: `compiled.as_text()`.
        as_xla: count as XLA's own analysis does, loops once and always the dearest branch.
    """
    computations, entry = _parsed(text)
    heading = text[: text.find("\n")]
    devices = max(int(count) for count in ["1", *re.findall(r"(?:num_partitions|replica_count)=(\d+)", heading)])

    @functools.cache
    def whole(name: str) -> Work:
        total, inside = Work(), computations[name]
        for one in inside.values():
            total = total.and_then(_own(one, inside, computations, devices))
            if one.kind == "while":
                trips = _trips(one, inside, computations)
                times = 1 if trips is None or as_xla else trips
                total = total._replace(unknown=total.unknown + (trips is None))
                for part in one.called("body") + one.called("condition"):
                    total = total.and_then(whole(part), times)
            elif one.kind == "conditional":
                names = one.called("branch_computations") or one.called("true_computation")
                names = names + one.called("false_computation")
                branches = sorted((whole(part) for part in names), key=lambda work: (work.products, *work[:2]))
                multiply = [work for work in branches if work.products]
                total = total.and_then(multiply[0] if multiply and not as_xla else branches[-1])
            elif one.kind in ("call", "async-start"):
                for part in one.called("to_apply") or one.called("calls"):
                    total = total.and_then(whole(part))
            elif one.kind == "fusion":  # nothing in it is stored; only its products and collectives are looked for
                for part in one.called("calls"):
                    inner = whole(part)
                    total = total.and_then(
                        inner._replace(cycles=0.0, traffic=0.0, collectives=_scattered(one, part, inner))
                    )
        return total

    return whole(entry)


def _parsed(text: str) -> tuple[dict[str, _Computation], str]:
    """The computations by name, and the name of the one that is run."""
    computations: dict[str, _Computation] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = computations[head["name"]] = {}
            entry = head["name"] if head["entry"] else entry
        elif found := _LINE.match(line):
            rest = found["rest"]
            end = _closed(rest, 0) if rest.startswith("(") else rest.index(" ")
            opened = rest.index("(", end)
            closed = _closed(rest, opened)
            kind, arguments = rest[end:opened].strip(), rest[opened:closed]
            current[found["name"]] = _Instruction(kind, rest[:end], arguments, rest[closed:], bool(found["root"]))
    return computations, entry


def _closed(text: str, opened: int) -> int:
    """The place after the bracket that closes the one at `opened`."""
    depth = 0
    for place in range(opened, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place + 1
    return len(text)


def _trips(loop: _Instruction, inside: _Computation, computations: dict[str, _Computation]) -> int | None:
    """How often a loop runs: where XLA does not say, the bound of a counter that goes up by one; else None."""
    if told := _TRIPS.search(loop.attributes):
        return int(told[1])
    condition, body = (computations[loop.called(role)[0]] for role in ("condition", "body"))
    test = _root(condition)
    if test.kind != "compare" or "direction=LT" not in test.attributes:
        return None
    counter, last = condition[test.operands[0]], _constant(test.operands[1], condition)
    if counter.kind != "get-tuple-element":
        return None
    place = int(re.search(r"index=(\d+)", counter.attributes)[1])
    first = _constant(inside[loop.operands[0]].operands[place], inside)
    step = body.get(_root(body).operands[place])
    if None in (first, last, step) or step.kind != "add" or 1 not in [_constant(x, body) for x in step.operands]:
        return None
    return max(last - first, 0)


def _constant(name: str, inside: _Computation) -> int | None:
    """The whole number behind a name, also where it is copied."""
    one = inside.get(name)
    while one and one.kind in ("copy", "bitcast"):
        one = inside.get(one.operands[0])
    return int(one.arguments[1:-1]) if one and one.kind == "constant" and one.arguments[1:-1].isdigit() else None


def _root(inside: _Computation) -> _Instruction:
    return next(one for one in inside.values() if one.root)


def _own(one: _Instruction, inside: _Computation, computations: dict[str, _Computation], devices: int) -> Work:
    """What an instruction does itself, apart from what it calls."""
    if one.kind in _NOTHING:
        return Work()
    collective = _collective(one, devices)
    cycles, products = _CYCLES.search(one.attributes), _products(one, inside)
    integer = bool(products) and one.type.startswith("s")
    precision = re.search(r"operand_precision=\{(\w+)", one.attributes)
    return Work(
        cycles=float(cycles[1]) if cycles else 0.0,
        traffic=float(_traffic(one, inside, computations)),
        products=products,
        passes=0.0 if integer else products * _PASSES.get(precision[1] if precision else "", 1),
        integers=products if integer else 0.0,
        collectives=((collective, 1),) if collective else (),
    )


def _collective(one: _Instruction, devices: int) -> Collective | None:
    kind = one.kind.removesuffix("-start")
    if kind not in KINDS:
        return None
    results = _elements(one.type)
    if kind != one.kind and kind in ("all-gather", "collective-permute"):
        results = results[1:2]  # (operands, results, ...)
    arrays = tuple(array for result in results for array in _arrays(result))
    size, n = sum(array.size for array in arrays), _group(one.attributes, devices)
    return Collective(kind, n, arrays, _wire(kind, size, n))


def _wire(kind: str, size: int, n: int) -> float:
    """Bytes that one of n devices sends, of results of `size` bytes."""
    whole = size * n if kind == "reduce-scatter" else size
    share = 1.0 if kind.startswith("collective") else (n - 1) / n
    return (2 if kind == "all-reduce" else 1) * share * whole


def _scattered(fusion: _Instruction, name: str, inner: Work) -> tuple[tuple[Collective, int], ...]:
    """The collectives in a fusion; a TPU writes a reduce-scatter as an all-reduce of which each device cuts a share."""
    if not name.startswith("all-reduce-scatter"):
        return inner.collectives
    given = tuple(_arrays(fusion.type))
    half = ((one._replace(kind="reduce-scatter", results=given, wire=one.wire / 2), n) for one, n in inner.collectives)
    return tuple(half)


def _group(attributes: str, devices: int) -> int:
    """Devices in a group: of lists {{0,1},{2,3}}, of [groups,size]<=[...], or of axes of a mesh."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=", attributes):
        return int(found[1].split(",")[-1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])  # an axis, or a part of it: 'x':(before)size
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return devices


def _elements(type_: str) -> list[str]:
    """The elements of a tuple, or the one type."""
    if not type_.startswith("("):
        return [type_]
    found, depth, start = [], 0, 1
    for place, letter in enumerate(type_):
        depth += (letter in "({[") - (letter in ")}]")
        if (letter == "," and depth == 1) or not depth:
            found.append(type_[start:place].strip())
            start = place + 1
    return found


def _arrays(type_: str) -> Iterator[Array]:
    for array in _ARRAY.finditer(type_):
        bits = 8 if array["kind"] == "pred" else int(re.sub(r"\D", "", array["kind"]))
        size = math.prod(_shape(array["dimensions"])) * bits // 8
        layout = array["layout"]
        yield Array(f"{array['kind']}[{array['dimensions']}]", size, bool(layout) and "S(" in layout)


def _shape(dimensions: str) -> list[int]:
    return [int(size) for size in dimensions.split(",") if size]


def _far(type_: str) -> int:
    """Bytes of what lies in the device's memory."""
    return sum(array.size for array in _arrays(type_) if not array.near)


def _traffic(one: _Instruction, inside: _Computation, computations: dict[str, _Computation]) -> int:
    """Bytes that an instruction reads from the device's memory and writes to it."""
    taken = [inside[name].type for name in one.operands if name in inside]
    if one.kind == "copy-start":
        return _far(one.type)  # both ends
    if one.kind == "slice-start":
        (source, given, *_) = _elements(one.type)
        moved = sum(array.size for array in _arrays(given))
        return moved * (bool(_far(source)) + bool(_far(given)))
    if one.kind.endswith(("-start", "-done")):
        return sum(map(_far, taken)) if one.kind.endswith("-start") else _far(one.type)
    if one.kind in _SLICES:
        return min(_far(taken[0]), sum(array.size for array in _arrays(one.type))) + _far(one.type)
    if one.kind == "dynamic-update-slice":
        return 2 * _far(taken[1])
    if one.kind == "fusion":
        (name,) = one.called("calls")
        return _fused(computations[name], taken, one.type)
    return sum(map(_far, taken)) + _far(one.type)


def _fused(inside: _Computation, taken: list[str], given: str) -> int:
    """The traffic of a fusion: of operands that are only cut from, the cuts; of one that is updated, the update."""
    names = {one.arguments: name for name, one in inside.items() if one.kind == "parameter"}
    total = 0
    for number, type_ in enumerate(taken):
        name = names[f"({number})"]
        users = [one for one in inside.values() if name in one.operands]
        if users and all(one.kind in _SLICES and one.operands[0] == name for one in users):
            total += min(_far(type_), sum(array.size for one in users for array in _arrays(one.type)))
        elif not (users and all(one.kind == "dynamic-update-slice" and one.operands[0] == name for one in users)):
            total += _far(type_)
    root = _root(inside)
    if root.kind == "dynamic-update-slice" and _far(given):
        return total + sum(array.size for array in _arrays(inside[root.operands[1]].type))
    return total + _far(given)


def _products(one: _Instruction, inside: _Computation) -> float:
    """Operations of a convolution or matrix product; a multiplication and an addition are two."""
    if one.kind not in ("convolution", "dot"):
        return 0.0
    out = math.prod(_shape(_ARRAY.search(one.type)["dimensions"]))
    left, right = (_shape(_ARRAY.search(inside[name].type)["dimensions"]) for name in one.operands[:2])
    if one.kind == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
        return 2.0 * out * math.prod(left[axis] for axis in _shape(found[1]))
    labels = re.search(r"dim_labels=\w+_(\w+)->", one.attributes)[1]
    return 2.0 * out * math.prod(right) / right[labels.index("o")]
