"""Recognisers from PyTorch's state dicts, and back.

A network's architecture follows from the names and shapes of its arrays. Every array of a state dict is used exactly
once, or an error names it. The way here and back leaves float32 arrays as they were, bit for bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from sface_jax.convert import array_files, onnx_networks, torch_files
from sface_jax.convert.recognizer_entries import entries
from sface_jax.core.errors import UserError
from sface_jax.core.files import PathLike, read_json
from sface_jax.recognition import network
from sface_jax.recognition.iresnet import IResNet
from sface_jax.recognition.mobilefacenet import STRIDE, MobileFaceNet
from sface_jax.recognition.network import Network, Preprocessing

Arrays = Mapping[str, np.ndarray]
Variables = dict[str, Any]

SUFFIXES = (*torch_files.SUFFIXES, *array_files.SUFFIXES)

_WRAPPERS = (
    *("state_dict", "net_state_dict", "model_state_dict", "state_dict_backbone", "backbone_state_dict"),
    *("model", "net", "network", "backbone", "encoder"),
)
_PREFIXES = ("module.", "backbone.", "model.", "encoder.", "net.", "network.")
# What training keeps beside a backbone, and no backbone has.
_HEADS = ("head", "header", "classifier", "margin", "loss", "criterion", "metric_fc")

SOFTWARE = "sface_jax"  # the mark of a description that is ours
_UNTOLD = ("strides", "stem_stride")  # attributes that the arrays of a state dict do not tell
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def load(
    source: PathLike | Mapping[str, Any], preprocessing: Preprocessing | None = None, **attributes: Any
) -> tuple[nn.Module, Variables, Preprocessing]:
    """Loads a recogniser: an iResNet (with squeeze-excitation or without) or a MobileFaceNet.

    Args:
        source: a file of a state dict (`.pth`, `.pt`, `.safetensors`, `.npz`), an `.onnx` file (see
            `onnx_networks.read`), the folder of a recogniser trained here, or a mapping of names to arrays. A state
            dict may be an entry ("state_dict", "model", ...) of a larger dict, and its names may share a prefix
            ("module.", "backbone.", ...). What a state dict cannot tell is read from the `.json` beside the file,
            where `convert.export` wrote one.
        preprocessing: of a state dict without that; None is what the published networks want:
            (x / 255 - 0.5) / 0.5, RGB, and ImageNet's mean and deviation for a MobileFaceNet with ReLU6.
        **attributes: of the module, what a state dict cannot tell: dropout, dtype, an iResNet's strides.

    Returns:
        The module, its variables {"params", "batch_stats"} (float32; an `.onnx` file has none), and the preprocessing:
        `module.apply(variables, preprocessing(pictures), train=False)` are embeddings, not normalised.

    Raises:
        UserError: there is no such network, or an entry is missing, left over or of another shape.
    """
    if isinstance(source, Mapping):
        return _from_state_dict(_find(source), preprocessing, attributes)
    path = epath.Path(source)
    if path.is_dir():
        found = network.load(path)
        return found.module, found.variables, found.preprocessing
    if path.suffix == onnx_networks.SUFFIX:
        found = onnx_networks.read(path)
        return found.module, found.variables, preprocessing or found.preprocessing
    content = read_file(path)
    told = _told(path)
    preprocessing = preprocessing or (network.read_preprocessing(told) if told else None)
    known = {name: told["architecture"][name] for name in _UNTOLD if name in told.get("architecture", {})}
    attributes = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()} | attributes
    try:
        return _from_state_dict(_find(content), preprocessing, attributes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def description(path: PathLike) -> epath.Path:
    """Where architecture and preprocessing of an exported file are: network.pth has network.json."""
    return epath.Path(path).with_suffix(".json")


def _told(path: epath.Path) -> dict[str, Any]:
    """What an export told beside its file, or nothing: a file of that name may be somebody else's."""
    beside = description(path)
    try:
        facts = read_json(beside) if beside.exists() else {}
    except UserError:
        return {}
    return facts if isinstance(facts, dict) and facts.get("software") == SOFTWARE else {}


def read_file(path: PathLike) -> Any:
    """Reads a file of arrays in any of the `SUFFIXES`, as it is.

    Raises:
        UserError: it is not there, of another kind, or damaged.
    """
    path = epath.Path(path)
    if path.suffix not in SUFFIXES or not path.exists():
        raise UserError(f"there are no weights {path}: name a folder, or a file in {', '.join(SUFFIXES)}")
    return torch_files.read(path) if path.suffix in torch_files.SUFFIXES else array_files.arrays(path)


def open_network(path: str, key: str) -> Network:
    """Opens the recogniser that a config names; see `load`.

    Args:
        path: a folder or a file.
        key: the config key, for the error line.

    Raises:
        UserError: there is no recogniser, or it is damaged.
    """
    place = epath.Path(path)
    if place.is_dir() or not place.suffix:
        return network.load(place, key)
    try:
        return Network(*load(place))
    except UserError as error:
        raise UserError(f"{error} (--config.{key})") from error


def to_state_dict(source: Network | nn.Module, variables: Variables | None = None) -> dict[str, np.ndarray]:
    """Turns a recogniser into the state dict that PyTorch would have: its names, order and layouts.

    Args:
        source: the network, or its module.
        variables: of the module, where `source` is one.

    Returns:
        Name -> array, float32, and int64 zeros for `num_batches_tracked`.

    Raises:
        UserError: the variables are not the module's.
    """
    module, variables = (source.module, source.variables) if isinstance(source, Network) else (source, variables)
    flat = flatten_dict(variables or {})
    arrays = {}
    for entry in entries(module):
        if not entry.path:
            arrays[entry.name] = np.zeros((), np.int64)
        elif entry.path in flat:
            array = entry.layout.theirs(np.asarray(flat.pop(entry.path), np.float32))
            arrays[entry.name] = np.array(array, order="C")
        else:
            raise UserError(f"these are not the variables of this {type(module).__name__}: {entry.path} is missing")
    if flat:
        raise UserError(f"these are not the variables of this {type(module).__name__}: {next(iter(flat))} is left over")
    return arrays


def _find(content: Any) -> Arrays:
    """The state dict in what a file holds, its names without the prefix they share."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    arrays = content if isinstance(content, Mapping) else {}
    arrays = {str(name): value for name, value in arrays.items() if not isinstance(value, int | float | str | None)}
    if not arrays or not all(_is_array(value) for value in arrays.values()):
        raise UserError("there is no state dict in it: names with an array each")
    while prefix := next((p for p in _PREFIXES if any(name.startswith(p) for name in arrays)), None):
        rest = [name for name in arrays if not name.startswith(prefix)]
        if any(name.split(".")[0] not in _HEADS for name in rest):
            break
        if rest:
            logging.info("left out, as part of a training head: %s", _some(rest))
        arrays = {name.removeprefix(prefix): value for name, value in arrays.items() if name not in rest}
    return {name: np.asarray(value) for name, value in arrays.items()}


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _from_state_dict(
    arrays: Arrays, preprocessing: Preprocessing | None, attributes: dict[str, Any]
) -> tuple[nn.Module, Variables, Preprocessing]:
    module = _iresnet(arrays, attributes) if "fc.weight" in arrays else _mobilefacenet(arrays, attributes)
    size = _size(module, arrays)
    if preprocessing is None:
        colours = _IMAGENET if getattr(module, "relu6", False) else {}
        preprocessing = Preprocessing(size, **colours)
    elif preprocessing.size != size:
        raise UserError(
            f"its arrays are of a network for {size} pixels, and the preprocessing gives {preprocessing.size}"
        )
    return module, _to_variables(module, arrays, size), preprocessing


def _to_variables(module: nn.Module, arrays: Arrays, size: int) -> Variables:
    """Brings every array to its place."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = {k: leaf.shape for k, leaf in flatten_dict(jax.eval_shape(module.init, jax.random.key(0), images)).items()}
    table = {entry.name: entry for entry in entries(module)}
    missing = [name for name, entry in table.items() if entry.path and name not in arrays]
    unknown = [name for name in arrays if name not in table]
    told = [f"{how}: {_some(names)}" for how, names in (("missing", missing), ("left over", unknown)) if names]
    if told:
        raise UserError(f"these are not the arrays of the {_words(module)} that they look like ({'; '.join(told)})")
    flat = {}
    for name, entry in table.items():
        if entry.path:
            # A view of one number has the shape and takes no memory.
            wanted = entry.layout.theirs(np.broadcast_to(np.float32(0), shapes[entry.path])).shape
            if arrays[name].shape != wanted:
                raise UserError(f"{name} has the shape {arrays[name].shape}, and the other arrays ask for {wanted}")
            if not jnp.issubdtype(arrays[name].dtype, jnp.floating):
                raise UserError(f"{name} holds {arrays[name].dtype} in place of real numbers")
            flat[entry.path] = np.array(entry.layout.ours(arrays[name]), np.float32, order="C")
    return unflatten_dict(flat)


def _iresnet(arrays: Arrays, attributes: dict[str, Any]) -> IResNet:
    stages = _count(arrays, r"layer(\d+)\.")
    if not stages:
        raise UserError(_UNKNOWN)
    return IResNet(
        **{
            "blocks": tuple(_count(arrays, rf"layer{stage}\.(\d+)\.", first=0) for stage in range(1, stages + 1)),
            "widths": tuple(_shape(arrays, f"layer{stage}.0.bn3.bias", 1)[0] for stage in range(1, stages + 1)),
            "strides": (2,) * stages,
            "embedding_size": _shape(arrays, "fc.weight", 2)[0],
            "squeeze_excitation": any(".se_block." in name for name in arrays),
            **attributes,
        }
    )


def _mobilefacenet(arrays: Arrays, attributes: dict[str, Any]) -> MobileFaceNet:
    if "gdconv.depthwise.weight" in arrays:
        found: dict[str, Any] = {"relu6": True, "embedding_size": _shape(arrays, "conv3.weight", 4)[0], "scale": 1}
    elif "conv_6_dw.conv.weight" in arrays:
        counts = [_count(arrays, rf"conv_{stage}\.model\.(\d+)\.", first=0) for stage in (3, 4, 5)]
        found = {"blocks": (1, *counts), "scale": 1, "embedding_size": _shape(arrays, "linear.weight", 2)[0]}
    elif "conv_sep.layers.0.weight" in arrays:
        single = "layers.1.layers.0.weight" in arrays
        counts = [_count(arrays, rf"layers\.{i}\.layers\.(\d+)\.layers\.0\.layers\.0\.", first=0) for i in (1, 3, 5, 7)]
        found = {
            "blocks": (1, *counts[1:]) if single else tuple(counts),
            "scale": _shape(arrays, "layers.0.layers.0.weight", 4)[0] // 64,
            "embedding_size": _shape(arrays, "features.layers.2.weight", 2)[0],
        }
    else:
        raise UserError(_UNKNOWN)
    return MobileFaceNet(**{**found, **attributes})


_UNKNOWN = (
    "these are not the arrays of an iResNet of arcface_torch, nor of a MobileFaceNet of arcface_torch, "
    "TreB1eN/InsightFace_Pytorch or foamliu/MobileFaceNet: neither layer1.0 and fc.weight nor its last depthwise layer"
)


def _size(module: nn.Module, arrays: Arrays) -> int:
    """The side of the pictures for which the last layer was made."""
    if isinstance(module, IResNet):
        pixels = _shape(arrays, "fc.weight", 2)[1] // module.widths[-1]
        return math.isqrt(pixels) * module.stem_stride * math.prod(module.strides)
    (name,) = (entry.name for entry in entries(module) if entry.path == ("params", "global"))
    return _shape(arrays, name, 4)[-1] * STRIDE


def _shape(arrays: Arrays, name: str, ndim: int) -> tuple[int, ...]:
    if name not in arrays or arrays[name].ndim != ndim or 0 in arrays[name].shape:
        raise UserError(f"there is no {name} of {ndim} axes in these arrays: they are no recogniser's known here")
    return arrays[name].shape


def _count(arrays: Arrays, pattern: str, first: int = 1) -> int:
    """How many numbers, from `first` on, the names have at that place."""
    numbers = sorted({int(match[1]) for name in arrays if (match := re.match(pattern, name))})
    if numbers != list(range(first, first + len(numbers))):
        raise UserError(f"its layers {pattern.replace(chr(92), '')} have the numbers {numbers[:9]}: some are missing")
    return len(numbers)


def _words(module: nn.Module) -> str:
    told = {"blocks": getattr(module, "blocks", None), "embedding_size": getattr(module, "embedding_size", None)}
    return f"{type(module).__name__}({', '.join(f'{key}={value}' for key, value in told.items())})"


def _some(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
