"""A graph of ONNX in the making: nodes, weights, and the file that they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from sface_jax import __version__
from sface_jax.core.errors import UserError

OPSET, IR_VERSION = 17, 8
LIMIT = 2**31 - 2**20  # bytes of a protocol buffer, less room for all but the weights

INPUT, OUTPUT = "images", "embeddings"


class Graph:
    """Nodes in the order of their computation. A value is known by its name; a weight is a value, too."""

    def __init__(self) -> None:
        self._onnx = package()
        self._nodes: list[Any] = []
        self._weights: dict[str, np.ndarray] = {}
        self._names: dict[str, int] = {}

    def weight(self, name: str, array: np.ndarray) -> str:
        """Adds an array under this name, or under one like it where it is taken, and returns that."""
        name = self._unique(name)
        self._weights[name] = array
        return name

    def node(self, op: str, scope: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its value."""
        output = output or self._unique(f"{scope}.{op}")
        self._nodes.append(self._onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def model(
        self, input_shape: Sequence[int], output_shape: Sequence[int], doc: str, metadata: Mapping[str, str]
    ) -> bytes:
        """Serialises the graph from `INPUT` to `OUTPUT`, of float32 arrays with any number of rows.

        Args:
            input_shape: without the rows.
            output_shape: without the rows.
            doc: what the model is, for readers.
            metadata: the model's properties.

        Raises:
            UserError: the weights do not fit into a file of ONNX.
        """
        nodes = self._needed()
        used = {name for node in nodes for name in node.input}
        weights = {name: array for name, array in self._weights.items() if name in used}
        if sum(array.nbytes for array in weights.values()) > LIMIT:
            raise UserError(
                "the network is larger than 2 GB, which an .onnx file cannot hold: export a .stablehlo file"
            )
        helper, real = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "recogniser",
            [helper.make_tensor_value_info(INPUT, real, ["N", *input_shape])],
            [helper.make_tensor_value_info(OUTPUT, real, ["N", *output_shape])],
            [self._onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        model = helper.make_model(
            graph,
            producer_name="sface_jax",
            producer_version=__version__,
            doc_string=doc,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _unique(self, name: str) -> str:
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}:{count}"

    def _needed(self) -> list[Any]:
        """The nodes that the output depends on."""
        wanted, kept = {OUTPUT}, []
        for node in reversed(self._nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]


def package() -> ModuleType:
    """The package `onnx`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise UserError("an .onnx file needs a package: install '.[convert]', or export another format") from error
    return onnx
