"""A recogniser in formats that others read: ONNX, StableHLO, and state dicts under PyTorch's names.

What goes out computes in float32, also where the network was trained in bfloat16.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float, Float32

from sface_jax.convert import array_files, onnx_graph, onnx_writer, recognizers, torch_files
from sface_jax.core import files
from sface_jax.core.arrays import AnyArray
from sface_jax.core.errors import UserError
from sface_jax.recognition import network as networks
from sface_jax.recognition.network import Network

SUFFIXES = (".onnx", ".stablehlo", *recognizers.SUFFIXES)
PLATFORMS = ("cpu", "cuda", "tpu")


def export(network: Network, path: files.PathLike) -> None:
    """Writes a recogniser in the format of the suffix; the file appears whole or not at all.

    - `.onnx`: from "images" [N,3,S,S] to "embeddings" [N,d], for any N. The preprocessing is in the metadata.
    - `.stablehlo`: from [n,S,S,3] to [n,d], for any n; `jax.export.deserialize(content).call(images)` on CPUs, GPUs and
      TPUs.
    - `.pth`, `.pt`, `.safetensors`, `.npz`: the state dict under PyTorch's names.

    Images are preprocessed, embeddings are not normalised. What is not in the metadata of an `.onnx` is in a file of
    JSON beside the others, named `recognizers.description`.

    Raises:
        UserError: the suffix is unknown, a package is missing, or the format cannot hold the network.
    """
    path, network = epath.Path(path), in_float32(network)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} cannot be written: take a file in {', '.join(SUFFIXES)}")
    if path.suffix == ".onnx":
        files.write_bytes(path, _onnx(network))
        return
    content = _stablehlo(network) if path.suffix == ".stablehlo" else recognizers.to_state_dict(network)
    files.write_json(recognizers.description(path), facts(network))
    if path.suffix == ".stablehlo":
        files.write_bytes(path, content)
    elif path.suffix in torch_files.SUFFIXES:
        torch_files.write(path, content)
    elif path.suffix == ".npz":
        files.write_npz(path, **content)
    else:
        files.write_bytes(path, array_files.safetensors_package().save(content))


def facts(network: Network) -> dict[str, Any]:
    """Architecture and preprocessing, as `network.json` has them."""
    preprocessing = dataclasses.asdict(network.preprocessing)
    architecture = networks.attributes(network.module)
    return {"software": recognizers.SOFTWARE, "architecture": architecture, "preprocessing": preprocessing}


def in_float32(network: Network) -> Network:
    """The network with a body that computes in float32."""
    variables = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), network.variables)  # on the default device
    return dataclasses.replace(network, module=network.module.clone(dtype=jnp.float32), variables=variables)


def embed(path: files.PathLike, images: Float[AnyArray, "n s s 3"]) -> Float32[np.ndarray, "n d"]:
    """Embeds preprocessed pictures with an exported file alone, in its own runtime where it has one.

    Raises:
        ImportError: `onnxruntime`, which runs an `.onnx`, is not installed.
        UserError: the file is damaged or of another kind.
    """
    path, images = epath.Path(path), np.asarray(images)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        return session.run([onnx_graph.OUTPUT], {onnx_graph.INPUT: images.transpose(0, 3, 1, 2)})[0]
    if path.suffix == ".stablehlo":
        return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(images))
    module, variables, _ = recognizers.load(path)
    return np.asarray(_apply(module, variables)(images))


def _onnx(network: Network) -> bytes:
    told, size = facts(network), network.preprocessing.size
    graph, width = onnx_writer.write(lambda x: network.module.apply(network.variables, x, train=False), size)
    metadata = {key: _text(value) for key, value in told["preprocessing"].items()}
    metadata |= {"architecture": json.dumps(told["architecture"]), "producer": "sface_jax"}
    doc = (
        f"Face recogniser. Input: pictures [N,3,{size},{size}] of aligned faces, channels in the channel_order of "
        "the metadata, as (picture / 255 - mean) / std. Output: embeddings, not normalised; compare by their cosine."
    )
    return graph.model((3, size, size), (width,), doc, metadata)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _stablehlo(network: Network) -> bytes:
    # One picture at a time, vectorised: a module may ask for the number of its rows, which nobody knows here.
    size = network.preprocessing.size
    (rows,) = jax.export.symbolic_shape("n")
    function = jax.jit(jax.vmap(lambda x: network.module.apply(network.variables, x[None], train=False)[0]))
    images = jax.ShapeDtypeStruct((rows, size, size, 3), jnp.float32)
    return bytes(jax.export.export(function, platforms=PLATFORMS)(images).serialize())


def _apply(module: Any, variables: Any) -> Any:
    return jax.jit(lambda x: module.apply(variables, x, train=False))
