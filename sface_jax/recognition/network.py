"""A recogniser as it lies on disk: what it is in `network.json`, its weights in the newest checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Num

from sface_jax.core import files, mesh
from sface_jax.core.arrays import AnyArray
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.recognition.iresnet import PUBLISHED, IResNet
from sface_jax.recognition.mobilefacenet import MobileFaceNet

KINDS: dict[str, type[nn.Module]] = {"iresnet": IResNet, "mobilefacenet": MobileFaceNet}
"""The families of networks, as the entry "kind" of `network.json` names them."""

NARROW = {"blocks": (1, 1, 1), "widths": (32, 64, 128), "strides": (2, 2, 1), "stem_stride": 2, "embedding_size": 128}
"""`iresnet_narrow`: for pictures of 32 to 64 pixels on a CPU."""

NAMED: dict[str, nn.Module] = {
    **{name: IResNet(blocks=blocks) for name, blocks in PUBLISHED.items()},
    "iresnet_narrow": IResNet(**NARROW),
    "mobilefacenet": MobileFaceNet(),
    "mobilefacenet_large": MobileFaceNet(blocks=(2, 8, 12, 4), scale=4),
    "mobilefacenet_relu6": MobileFaceNet(scale=1, embedding_size=128, relu6=True),
}
"""The networks that a config can name."""

_SET_BY_NAME = ("blocks", "scale", "relu6")  # of a MobileFaceNet: no keys of a config


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a network wants done to a picture: (resized picture / 255 - mean) / std, channel by channel.

    Attributes:
        size: height and width of the network's input.
        mean: of the three channels, in [0, 1].
        std: of the three channels, in the same unit: a range of [-1, 1] is a mean and std of 0.5.
        channel_order: "rgb" or "bgr".
        alignment: the template that the eyes, nose and mouth of a picture should lie on; "arcface" is InsightFace's of
            five points for 112x112. Pictures are not aligned here.
    """

    size: int = 112
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    channel_order: str = "rgb"
    alignment: str = "arcface"

    def __call__(self, pictures: Num[Array | np.ndarray, "n h w 3"]) -> Float[Array, "n s s 3"]:
        """Prepares RGB pictures 0..255 (uint8 or float) of any size; the resize is bilinear and anti-aliased."""
        x = jnp.asarray(pictures, jnp.float32)
        if x.shape[1:3] != (self.size, self.size):
            x = jax.image.resize(x, (len(x), self.size, self.size, 3), "bilinear")
        if self.channel_order == "bgr":
            x = x[..., ::-1]
        return (x / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained recogniser.

    Attributes:
        module: `module.apply(variables, preprocessing(pictures), train=False)` are embeddings [n, d], not normalised.
        variables: {"params", "batch_stats"}.
        preprocessing: from pictures 0..255 to the network's input.
    """

    module: nn.Module
    variables: dict[str, Any]
    preprocessing: Preprocessing


OpenNetwork = Callable[[str, str], Network]
"""(folder or file, config key for the error line) -> the network in it. `main` hands over one that reads PyTorch."""


def architecture(name: str, **changes: Any) -> dict[str, Any]:
    """The attributes of a named network, as `build` and `network.json` take them.

    Args:
        name: one of `NAMED`.
        **changes: attributes of the network to set; None, 0 and () leave them as they are.

    Raises:
        UserError: there is no such network, it has no such attribute, or its stages do not fit together.
    """
    if name not in NAMED:
        raise UserError(f"config.network is {name!r}: choose from {', '.join(NAMED)}")
    changes = {key: value for key, value in changes.items() if value}
    own = attributes(NAMED[name])
    for key in changes:
        if key not in own or (own["kind"] == "mobilefacenet" and key in _SET_BY_NAME):
            nothing = type(changes[key])()
            raise UserError(f"{name} has no {key}: set --config.{key}={nothing}, or choose another config.network")
    own |= changes
    stages = {key: tuple(own[key]) for key in ("blocks", "widths", "strides") if key in own}
    if len({len(stage) for stage in stages.values()}) > 1:
        told = ", ".join(f"config.{key}={stage}" for key, stage in stages.items())
        raise UserError(f"every stage needs its blocks, width and stride, not {told}")
    return own | stages


def attributes(module: nn.Module) -> dict[str, Any]:
    """What `build` makes the module of: its kind and its fields, ready for JSON."""
    (kind,) = (kind for kind, cls in KINDS.items() if type(module) is cls)
    names = [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]
    return {"kind": kind, **{name: getattr(module, name) for name in names}, "dtype": jnp.dtype(module.dtype).name}


def build(attributes: dict[str, Any]) -> nn.Module:
    """Makes the module from `architecture`'s attributes, or from what JSON made of them; without a kind, an iResNet."""
    fixed = {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
    kind = fixed.pop("kind", "iresnet")
    return KINDS[kind](**{**fixed, "dtype": jnp.dtype(fixed["dtype"])})


def describe(
    directory: files.PathLike,
    attributes: dict[str, Any],
    preprocessing: Preprocessing,
    training: dict[str, Any] | None = None,
) -> None:
    """Writes `network.json`, what `load` needs beside the checkpoints, and what is known of the network's training."""
    if mesh.is_lead():
        facts = {"architecture": attributes, "preprocessing": dataclasses.asdict(preprocessing)}
        facts |= {"training": training} if training else {}
        files.write_json(epath.Path(directory) / "network.json", facts)


def save(directory: files.PathLike, network: Network) -> None:
    """Writes a network that was not trained here, such as a converted one, so that `load` finds it.

    Args:
        directory: a folder of its own.
        network: any of the `KINDS`.
    """
    describe(directory, attributes(network.module), network.preprocessing)
    checkpoints = Checkpoints(epath.Path(directory) / "checkpoints")
    weights = {"params": {"backbone": network.variables["params"]}, "batch_stats": network.variables["batch_stats"]}
    checkpoints.save(0, weights)
    checkpoints.close()


def load(directory: files.PathLike, key: str = "networks") -> Network:
    """Loads a recogniser from its newest checkpoint.

    Args:
        directory: the folder `recognition/<name>` of a work directory, or one that `save` wrote.
        key: the config key that names the folder, for the error line.

    Raises:
        UserError: there is no trained recogniser.
    """
    directory = epath.Path(directory)
    if not (directory / "network.json").exists() or not (directory / "checkpoints").exists():
        raise UserError(f"no recogniser in {directory}: train one there, or set --config.{key}=DIR to a trained one")
    facts = files.read_json(directory / "network.json")
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    state = checkpoints.read(["params/backbone", "batch_stats"])
    checkpoints.close()
    if state is None:
        raise UserError(f"no checkpoint in {directory}: its training has not saved one yet")
    variables = {"params": state["params"]["backbone"], "batch_stats": state["batch_stats"]}
    return Network(build(facts["architecture"]), variables, read_preprocessing(facts))


def read_preprocessing(facts: dict[str, Any]) -> Preprocessing:
    """The preprocessing in what `describe` wrote."""
    return Preprocessing(**{k: tuple(v) if isinstance(v, list) else v for k, v in facts["preprocessing"].items()})


def fingerprint(network: Network) -> str:
    """A hash of all that decides about a network's embeddings: module, weights, preprocessing."""
    digest = hashlib.sha256(f"{network.preprocessing} {network.module}".encode())
    for leaf in jax.tree.leaves(network.variables):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def embedder(network: Network, name: str) -> Embedder:
    """A recogniser as other packages look through it: pictures in [-1, 1] to embeddings of length one.

    Unlike `verification.embed`, it looks at each picture once, and not at its mirror image.

    Args:
        network: the recogniser.
        name: for logs.
    """

    def apply(variables: Any, pictures: Float[AnyArray, "n h w 3"]) -> Float[Array, "n d"]:
        x = network.preprocessing(127.5 * (pictures + 1))
        e = network.module.apply(variables, x, train=False).astype(jnp.float32)
        return e * jax.lax.rsqrt(jnp.maximum(jnp.square(e).sum(1, keepdims=True), 1e-24))

    return Embedder(name, network.variables, apply)
