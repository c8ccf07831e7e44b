"""Writes what a network computes as a graph of ONNX, by going through JAX's own record of it, the jaxpr.

So a new backbone needs nothing here, as long as it is made of the operations below.

- What does not depend on the pictures is computed now, and becomes a weight.
- Our maps are [n, h, w, c], those of ONNX [n, c, h, w]. A value keeps the order in which its axes lie over there, so a
  transposition costs nothing but new numbers in that order, and none is left in the graph.
- A factor and a summand for each channel stay with their value until it is used otherwise: what is one line of algebra
  after another in a BatchNorm, with a bias before it, becomes one node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from sface_jax.convert.onnx_graph import INPUT, OUTPUT, Graph
from sface_jax.core.errors import UserError

ROWS = 2  # pictures that the network is traced with; the graph takes any number
IMAGES = (0, 3, 1, 2)  # [n, h, w, c] as [n, c, h, w]
EPSILON = np.float32(1e-5)  # of a BatchNormalization: 0 is not everywhere allowed

_INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint")


@dataclasses.dataclass
class Value:
    """What depends on the pictures: scale * (the value of that name) + shift, channel by channel.

    Attributes:
        name: in the graph.
        shape: ours.
        order: the axis k over there is our axis order[k].
        scale: [c], or None for 1; the channels are axis 1 over there.
        shift: [c], or None for 0.
        layer: of the last factor or summand, for names.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    layer: str = ""

    @property
    def channel(self) -> int:
        """Our axis of the channels."""
        return self.order[1]


@dataclasses.dataclass
class Positive:
    """Where a value is at least 0."""

    value: Value


def write(apply: Callable[[jax.Array], jax.Array], size: int) -> tuple[Graph, int]:
    """Writes a network.

    Args:
        apply: pictures [n, size, size, 3] to embeddings [n, d], its weights inside; float32 throughout.
        size: of the pictures.

    Returns:
        The graph, from pictures [n, 3, size, size] to embeddings, and d.

    Raises:
        UserError: the network computes what is not known here, or `onnx` is not installed.
    """
    images = jax.ShapeDtypeStruct((ROWS, size, size, 3), jnp.float32)
    closed = jax.make_jaxpr(apply)(images)
    writer = _Writer()
    (value,) = writer.run(closed.jaxpr, closed.consts, [Value(INPUT, images.shape, IMAGES)], "")
    writer.graph.node("Identity", OUTPUT, [writer.plain(value).name], OUTPUT)
    return writer.graph, value.shape[1]


class _Writer:
    """Goes through equations; a method for each operation, of its name."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.scope = ""
        self.strided: dict[str, tuple[str, list[int]]] = {}

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any], scope: str) -> list[Any]:
        """Writes the equations of a jaxpr and returns its outputs."""
        known = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, jex.Literal) else known[atom]

        for equation in jaxpr.eqns:
            inside = str(equation.source_info.name_stack)
            self.scope = "/".join(filter(None, (scope, inside)))
            results = self._equation(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name == "platform_index":
            return [params["platforms"].index(None)]  # the form that suits every machine
        if name == "cond" and not isinstance(inputs[0], Value | Positive):
            return self._inside(params["branches"][int(inputs[0])], inputs[1:])
        if name in _INLINED:
            return self._inside(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], inputs)
        if not any(isinstance(x, Value | Positive) for x in inputs):
            results = equation.primitive.bind(*inputs, **params)
            return list(results) if equation.primitive.multiple_results else [results]
        method = getattr(self, f"_{name}", None)
        if method is None:
            raise self._unknown(name)
        return [method(*inputs, **{**params, "shape": equation.outvars[0].aval.shape})]

    def _inside(self, jaxpr: Any, inputs: list[Any]) -> list[Any]:
        closed = isinstance(jaxpr, jex.ClosedJaxpr)
        outer = self.scope
        results = self.run(jaxpr.jaxpr if closed else jaxpr, jaxpr.consts if closed else (), inputs, outer)
        self.scope = outer
        return results

    def _unknown(self, operation: str) -> UserError:
        return UserError(f"an .onnx file cannot hold {operation}, as in {self._layer}: export a .stablehlo file")

    @property
    def _layer(self) -> str:
        """The layer of the equation at hand, for names: layer1_0.conv1; the network's own name is left out."""
        return ".".join(self.scope.split("/")[1:]) or "network"

    def _node(self, op: str, like: Value, shape: Sequence[int], inputs: Sequence[str], **attributes: Any) -> Value:
        """A node whose value has its axes in the order of another."""
        return Value(self.graph.node(op, self._layer, inputs, **attributes), tuple(shape), like.order)

    def _weight(self, role: str, array: Any) -> str:
        return self.graph.weight(f"{self._layer}.{role}", np.ascontiguousarray(array))

    def plain(self, value: Value, order: tuple[int, ...] | None = None) -> Value:
        """Writes the factor and summand of a value as a node, once for all its uses; and another order of its axes."""
        if value.scale is not None or value.shift is not None:
            channels = value.shape[value.channel]
            one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
            scale, shift = one if value.scale is None else value.scale, zero if value.shift is None else value.shift
            parts = {"scale": scale, "bias": shift, "mean": zero, "var": one - EPSILON}
            weights = [self.graph.weight(f"{value.layer}.{role}", array) for role, array in parts.items()]
            inputs = [value.name, *weights]
            value.name = self.graph.node("BatchNormalization", value.layer, inputs, epsilon=float(EPSILON))
            value.scale = value.shift = None
        if order is None or value.order == order:
            return value
        permutation = [value.order.index(axis) for axis in order]
        name = self.graph.node("Transpose", self._layer, [value.name], perm=permutation)
        return Value(name, value.shape, order)

    # Arithmetic.

    def _mul(self, x: Any, y: Any, shape: tuple[int, ...], **_: Any) -> Value:
        return self._with_constant(x, y, shape, "Mul") or self._both("Mul", x, y, shape)

    def _div(self, x: Any, y: Any, shape: tuple[int, ...], **_: Any) -> Value:
        if isinstance(x, Value) and not isinstance(y, Value):
            return self._mul(x, 1 / np.asarray(y), shape)
        return self._both("Div", x, y, shape)

    def _add(self, x: Any, y: Any, shape: tuple[int, ...], **_: Any) -> Value:
        return self._with_constant(x, y, shape, "Add") or self._both("Add", x, y, shape)

    def _sub(self, x: Any, y: Any, shape: tuple[int, ...], **_: Any) -> Value:
        if isinstance(x, Value) and not isinstance(y, Value):
            return self._add(x, -np.asarray(y), shape)
        return self._both("Sub", x, y, shape)

    def _with_constant(self, x: Any, y: Any, shape: tuple[int, ...], op: str) -> Value | None:
        """Takes in a constant that has one number, or one for each channel."""
        value, constant = (x, y) if isinstance(x, Value) else (y, x)
        if isinstance(constant, Value) or value.shape != shape:
            return None
        constant = np.asarray(constant, np.float32)
        others = [axis for axis, side in enumerate(constant.shape) if side > 1 and axis != value.channel]
        if others:
            return None
        factor = np.broadcast_to(constant.ravel(), (shape[value.channel],))
        scale, shift = value.scale, value.shift
        if op == "Add":
            shift = factor if shift is None else shift + factor
        else:
            scale, shift = (None if part is None else part * factor for part in (scale, shift))
            scale = factor if scale is None else scale
        if scale is not None and np.all(scale == 1):
            scale = None
        return Value(value.name, shape, value.order, scale, shift, self._layer)

    def _both(self, op: str, x: Any, y: Any, shape: tuple[int, ...]) -> Value:
        """A node of two inputs, one of which may be a constant."""
        like = x if isinstance(x, Value) else y
        names = []
        for z in (x, y):
            if isinstance(z, Value):
                names.append(self.plain(z, like.order).name)
            else:
                z = np.asarray(z, np.float32)
                names.append(self._weight("constant", z.transpose(like.order) if z.ndim else z))
        return self._node(op, like, shape, names)

    def _max(self, x: Any, y: Any, shape: tuple[int, ...], **_: Any) -> Value:
        value, least = (x, y) if isinstance(x, Value) else (y, x)
        if not isinstance(least, Value) and not np.any(least):
            return self._node("Relu", value, shape, [self.plain(value).name])
        return self._both("Max", x, y, shape)

    def _min(self, x: Any, y: Any, shape: tuple[int, ...], **_: Any) -> Value:
        return self._both("Min", x, y, shape)

    def _logistic(self, x: Value, shape: tuple[int, ...], **_: Any) -> Value:
        return self._node("Sigmoid", x, shape, [self.plain(x).name])

    def _ge(self, x: Any, y: Any, **_: Any) -> Positive:
        if not isinstance(x, Value) or isinstance(y, Value) or np.any(y):
            raise self._unknown("ge")
        return Positive(self.plain(x))

    def _select_n(self, where: Any, below: Any, above: Any, shape: tuple[int, ...], **_: Any) -> Value:
        """x where it is at least 0, and slope * x below."""
        if not (
            isinstance(where, Positive)
            and isinstance(below, Value)
            and above is where.value
            and below.name == above.name
            and below.shift is None
            and below.scale is not None
        ):
            raise self._unknown("select_n")
        sides = (-1, *(1,) * (len(shape) - 2))
        return self._node("PRelu", above, shape, [above.name, self._weight("slope", below.scale.reshape(sides))])

    # Sums.

    def _conv_general_dilated(
        self, x: Value, kernel: Any, shape: tuple[int, ...], dimension_numbers: Any, window_strides: Sequence[int],
        padding: Sequence[tuple[int, int]], lhs_dilation: Sequence[int], rhs_dilation: Sequence[int],
        feature_group_count: int, batch_group_count: int, **_: Any,
    ) -> Value:  # fmt: skip
        if isinstance(kernel, Value) or set(lhs_dilation) != {1} or batch_group_count != 1:
            raise self._unknown("transposed convolution")
        kernel = np.transpose(kernel, dimension_numbers.rhs_spec)
        source = self.plain(x, tuple(dimension_numbers.lhs_spec)).name
        strides = list(window_strides)
        if set(kernel.shape[2:]) == {1} and source in self.strided and not np.any(padding):
            # The strided pixels of a 1x1 convolution: the graph takes them by its own stride.
            source, skipped = self.strided[source]
            strides = [a * b for a, b in zip(strides, skipped, strict=True)]
        attributes = {
            "kernel_shape": kernel.shape[2:],
            "strides": strides,
            "pads": [pad[end] for end in (0, 1) for pad in padding],
            "dilations": list(rhs_dilation),
            "group": feature_group_count,
        }
        name = self.graph.node("Conv", self._layer, [source, self._weight("weight", kernel)], **attributes)
        return Value(name, shape, tuple(dimension_numbers.out_spec))

    def _dot_general(self, x: Any, kernel: Any, shape: tuple[int, ...], dimension_numbers: Any, **_: Any) -> Value:
        """A linear layer; over the channels of a map it is a 1x1 convolution."""
        contracted, batch = dimension_numbers
        fits = isinstance(x, Value) and not isinstance(kernel, Value) and not any(batch)
        if not fits or np.ndim(kernel) != 2 or list(contracted[0]) != [x.channel]:
            raise self._unknown("dot_general")
        kernel = np.moveaxis(np.asarray(kernel), contracted[1][0], 1)  # [out, in]
        source = self.plain(x).name
        if len(x.shape) == 2:
            return self._node("Gemm", x, shape, [source, self._weight("weight", kernel)], transB=1)
        spatial = len(x.shape) - 2
        kernel = kernel.reshape(*kernel.shape, *(1,) * spatial)
        name = self.graph.node("Conv", self._layer, [source, self._weight("weight", kernel)])
        # Our axes left of x, in their order, then the outputs.
        left = [axis for axis in range(len(x.shape)) if axis != x.channel]
        order = [left.index(axis) if axis in left else len(left) for axis in x.order]
        return Value(name, shape, tuple(order))

    def _reduce_sum(self, x: Value, shape: tuple[int, ...], axes: Sequence[int], **_: Any) -> Value:
        """The mean, with a factor that mostly meets its inverse later."""
        if 0 in axes or len(shape) < 2:
            raise self._unknown("reduce_sum")
        there = sorted(x.order.index(axis) for axis in axes)
        name = self.graph.node("ReduceMean", self._layer, [self.plain(x).name], axes=there, keepdims=0)
        left = [axis for axis in range(len(x.shape)) if axis not in axes]
        order = tuple(left.index(axis) for axis in x.order if axis in left)
        count = np.prod([x.shape[axis] for axis in axes], dtype=np.float32)
        return Value(name, shape, order, np.full(shape[order[1]], count), layer=self._layer)

    # Shapes.

    def _transpose(self, x: Value, shape: tuple[int, ...], permutation: Sequence[int], **_: Any) -> Value:
        order = tuple(list(permutation).index(axis) for axis in x.order)
        return dataclasses.replace(x, shape=shape, order=order)

    def _reshape(self, x: Value, shape: tuple[int, ...], **_: Any) -> Value:
        if shape[0] != ROWS:
            raise self._unknown("reshape")
        x = self.plain(x, tuple(range(len(x.shape))))
        sides = self._weight("shape", np.array((-1, *shape[1:]), np.int64))
        name = self.graph.node("Reshape", self._layer, [x.name, sides])
        return Value(name, shape, tuple(range(len(shape))))

    def _broadcast_in_dim(
        self, x: Value, shape: tuple[int, ...], broadcast_dimensions: Sequence[int], **_: Any
    ) -> Value:
        """New axes come last over there, so that the channels stay where they are."""
        if broadcast_dimensions[0] != 0:
            raise self._unknown("broadcast_in_dim")
        new = [axis for axis in range(len(shape)) if axis not in broadcast_dimensions]
        order = (*(broadcast_dimensions[axis] for axis in x.order), *new)
        value = self.plain(x)
        if new:
            places = self._weight("axes", np.arange(len(x.shape), len(shape)))
            value = Value(self.graph.node("Unsqueeze", self._layer, [value.name, places]), shape, order)
        wide = [1 if axis == 0 else shape[axis] for axis in order]
        if any(shape[axis] > 1 for axis in new) or any(
            shape[there] != x.shape[here] for here, there in enumerate(broadcast_dimensions)
        ):
            sides = self._weight("shape", np.array(wide, np.int64))
            value = Value(self.graph.node("Expand", self._layer, [value.name, sides]), shape, order)
        return value

    def _slice(
        self, x: Value, shape: tuple[int, ...], start_indices: Sequence[int], limit_indices: Sequence[int],
        strides: Sequence[int] | None, **_: Any,
    ) -> Value:  # fmt: skip
        if shape[0] != x.shape[0]:
            raise self._unknown("slice")
        strides = strides or (1,) * len(shape)
        source = self.plain(x).name
        axes = x.order[1:]
        parts = {
            "starts": [start_indices[axis] for axis in axes],
            "ends": [limit_indices[axis] for axis in axes],
            "axes": range(1, len(shape)),
            "steps": [strides[axis] for axis in axes],
        }
        inputs = [source, *(self._weight(role, np.array(part, np.int64)) for role, part in parts.items())]
        value = self._node("Slice", x, shape, inputs)
        spatial = x.order[2:]
        whole = not any(start_indices) and tuple(limit_indices) == x.shape and strides[x.channel] == 1
        if whole:
            self.strided[value.name] = source, [strides[axis] for axis in spatial]
        return value

    def _convert_element_type(self, x: Any, new_dtype: Any, **_: Any) -> Value:
        if not isinstance(x, Value) or new_dtype != jnp.float32:
            raise self._unknown(f"numbers in {new_dtype}")
        return x

    def _optimization_barrier(self, x: Value, **_: Any) -> Value:
        return x
