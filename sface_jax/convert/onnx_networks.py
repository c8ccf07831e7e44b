"""Recognisers in `.onnx` files, run by onnxruntime on the host from within JAX's programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Array, Float, Float32

from sface_jax.convert import onnx_graph
from sface_jax.core.arrays import AnyArray
from sface_jax.core.errors import Damaged, UserError
from sface_jax.core.files import PathLike
from sface_jax.recognition.network import Network, Preprocessing

SUFFIX = ".onnx"
SIZE = 112  # of pictures, where the graph takes any

MOST = 2**27
"""Numbers of a batch: a graph that claims to take more is refused before memory is taken for them."""

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_FIRST = 8  # nodes of a graph among which InsightFace looks for a normalisation


class Graph:
    """A graph of ONNX that makes embeddings of pictures. Two are equal when their files are."""

    def __init__(self, content: bytes):
        """Reads the graph and tries it once, for shapes in files are often not told, or wrong.

        Args:
            content: of the file.

        Raises:
            Damaged: onnxruntime cannot read it.
            UserError: it is no recogniser, or onnxruntime is not installed.
        """
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = _session(content)
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape) if inputs else []
        if len(inputs) != 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]) or inputs[0].type not in _TYPES:
            told = ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs)
            raise UserError(f"it is no recogniser: it takes {told or 'nothing'}, not pictures of three channels alone")
        self.channels_first = shape[1] == 3
        sides = shape[2:] if self.channels_first else shape[1:3]
        known = {side for side in sides if isinstance(side, int)}
        if len(known) > 1:
            raise UserError(f"it takes pictures of {sides[0]} x {sides[1]} pixels, and only square ones are known here")
        self.size = known.pop() if known else 0
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        self._rows = shape[0] if isinstance(shape[0], int) else 0
        if min(self._rows, self.size) < 0 or 3 * max(self._rows, 1) * self.size**2 > MOST:
            raise UserError(f"it takes {shape} numbers at once, which no recogniser does")
        try:
            self._output, self.width = self._try(self._rows or 2)
        except UserError:
            if self._rows:
                raise
            self._rows = 1  # the file promises any number, and means one
            self._output, self.width = self._try(1)

    @property
    def metadata(self) -> dict[str, str]:
        """The properties that the file's writer gave it."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Float[AnyArray, "n s s 3"]) -> Float32[np.ndarray, "n d"]:
        """Embeds preprocessed pictures, as many at a time as the graph takes."""
        images = np.asarray(images).astype(self._type)
        if self.channels_first:
            images = images.transpose(0, 3, 1, 2)
        at_once = self._rows or max(len(images), 1)
        rows = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(images), at_once):
            taken = images[start : start + at_once]
            padded = np.concatenate([taken, np.repeat(taken[-1:], at_once - len(taken), axis=0)])
            (made,) = self._session.run([self._output], {self._input: padded})
            rows.append(made.reshape(at_once, self.width)[: len(taken)].astype(np.float32))
        return np.concatenate(rows)

    def _try(self, rows: int) -> tuple[str, int]:
        """The output that has a row for each of so many pictures, and the length of a row.

        Raises:
            UserError: there is none.
        """
        names, side = [entry.name for entry in self._session.get_outputs()], self.size or SIZE
        shape = (rows, 3, side, side) if self.channels_first else (rows, side, side, 3)
        try:
            made = self._session.run(names, {self._input: np.zeros(shape, self._type)})
        except Exception as error:  # onnxruntime's exceptions have no class in common
            raise UserError(f"it does not run on pictures of {side} x {side} pixels ({_line(error)})") from error
        found = [(name, array.shape[1]) for name, array in zip(names, made, strict=True) if _has_rows(array, rows)]
        if not found:
            told = ", ".join(f"{name} {np.shape(array)}" for name, array in zip(names, made, strict=True))
            raise UserError(f"it is no recogniser: none of its outputs has a row of numbers for each picture ({told})")
        if len(found) > 1:
            logging.warning("of the outputs %s the first is taken for the embedding", ", ".join(n for n, _ in found))
        return found[0]

    def __repr__(self) -> str:
        return f"onnx(sha256={self.sha256})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Graph) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


class OnnxNetwork(nn.Module):
    """A recogniser without variables, which calls onnxruntime. It can neither be trained nor differentiated.

    Attributes:
        graph: what is run.
    """

    graph: Graph

    @nn.compact
    def __call__(self, x: Float[Array, "n s s 3"], train: bool = False) -> Float[Array, "n d"]:
        """Embeds preprocessed pictures.

        Args:
            x: pictures.
            train: there for other networks' sake; the graph is as it is.
        """
        return _on_host.bind(x, graph=self.graph)


# Not jax.pure_callback: that hands a jax.Array to the function, for which a thread of the pool must copy the pictures
# first. Where each of several devices of a CPU waits in its callback or for the others, no thread is left to do so.
_on_host = Primitive("onnx")


@_on_host.def_impl
def _(x: Float[Array, "n s s 3"], *, graph: Graph) -> Float32[Array, "n d"]:
    return jnp.asarray(graph(np.asarray(x)))


@_on_host.def_abstract_eval
def _(x: jax.core.ShapedArray, *, graph: Graph) -> jax.core.ShapedArray:
    return jax.core.ShapedArray((x.shape[0], graph.width), jnp.float32)


def _lower(context: mlir.LoweringRuleContext, x: Any, *, graph: Graph) -> Sequence[Any]:
    values, _, _ = mlir.emit_python_callback(
        context,
        lambda pictures: (graph(pictures),),
        None,
        [x],
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return values


mlir.register_lowering(_on_host, _lower, cacheable=False)


def read(path: PathLike) -> Network:
    """Reads the recogniser in an `.onnx` file.

    Its preprocessing is what our exporter wrote into it. In another's file it is what InsightFace's arcface_onnx.py
    takes: RGB in [-1, 1], or 0..255 where the graph begins with a normalisation of its own.

    Raises:
        Damaged: it is not a file of ONNX that onnxruntime can run by itself.
        UserError: it is not there, no recogniser, or onnxruntime is not installed.
    """
    path = epath.Path(path)
    if not path.exists() or path.is_dir():
        raise UserError(f"there is no network {path}")
    content = path.read_bytes()
    try:
        graph = Graph(content)
        preprocessing = _ours(graph) or _guessed(path, graph, content)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from error
    return Network(OnnxNetwork(graph), {}, preprocessing)


def _ours(graph: Graph) -> Preprocessing | None:
    """What `export.export` wrote, where it did."""
    try:
        told = graph.metadata
        if told.get("producer") != "sface_jax":
            return None
        mean, std = (tuple(map(float, json.loads(told[key]))) for key in ("mean", "std"))
        if (len(mean), len(std), told["channel_order"] in ("rgb", "bgr")) != (3, 3, True):
            raise ValueError(f"mean {mean}, std {std}, order {told['channel_order']}")
        size = int(told["size"])
        if not np.isfinite([*mean, *std]).all() or 0 in std or size <= 0 or graph.size not in (None, 0, size):
            raise ValueError(f"mean {mean}, std {std}, size {size} for pictures of {graph.size or 'any'} pixels")
        return Preprocessing(size, mean, std, told["channel_order"], told["alignment"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"its metadata is not what was written ({_line(error)}): export it again") from error


def _guessed(path: epath.Path, graph: Graph, content: bytes) -> Preprocessing:
    model = onnx_graph.package().load_model_from_string(content)
    first = {node.op_type for node in model.graph.node[:_FIRST]}
    raw = {"Sub", "Mul"} <= first
    logging.info(
        "%s does not say how it wants pictures: taken to want RGB %s of %d pixels, as InsightFace's do; "
        "--config.preprocessing says otherwise, and configs/doctor.py finds out",
        *(path, "0..255" if raw else "in [-1, 1]", graph.size or SIZE),
    )
    colours = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)} if raw else {}
    return Preprocessing(graph.size or SIZE, **colours)


def _session(content: bytes) -> Any:
    runtime = _package()
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    providers = [name for name in _PROVIDERS if name in runtime.get_available_providers()]
    try:
        return runtime.InferenceSession(content, options, providers, enable_fallback=0)  # which would print
    except Exception as error:  # onnxruntime's exceptions have no class in common
        raise Damaged(f"it is not a file of ONNX that onnxruntime can run by itself ({_line(error)})") from error


def _package() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("an .onnx file needs onnxruntime: pip install '.[convert]'") from error
    return onnxruntime


def _has_rows(array: Any, rows: int) -> bool:
    """Whether an output has a row for each picture; axes of length 1 behind it do not count."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim < 2:
        return False
    return len(array) == rows and array.shape[1] > 1 and array.size == rows * array.shape[1]


def _line(error: Exception) -> str:
    told = " ".join(str(error).split())
    return told if len(told) < 160 else told[:160] + "..."
