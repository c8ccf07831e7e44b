"""The arrays of recognisers in PyTorch and here: one table of names and layouts, read in both directions.

Names are those of arcface_torch for the iResNets and the wide MobileFaceNets, of TreB1eN/InsightFace_Pytorch for the
MobileFaceNet of scale 1, and of foamliu/MobileFaceNet for the one with ReLU6.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn

from sface_jax.convert.state_dict import CONV, DENSE, SAME, Layout
from sface_jax.recognition.iresnet import IResNet
from sface_jax.recognition.mobilefacenet import MobileFaceNet, bottlenecks

# A linear layer that PyTorch has as a 1x1 convolution: [out, in, 1, 1] and [in, out].
POINTWISE = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])


class Entry(NamedTuple):
    """One array: its name in PyTorch, its path here (collection, modules, name), and its layout.

    PyTorch's `num_batches_tracked` has no path: it is 0 there, and nothing here.
    """

    name: str
    path: tuple[str, ...]
    layout: Layout = SAME


def entries(module: nn.Module) -> Iterator[Entry]:
    """The arrays of an `IResNet` or a `MobileFaceNet`, in the order of PyTorch's state dict."""
    if isinstance(module, IResNet):
        return _iresnet(module)
    assert isinstance(module, MobileFaceNet)
    if module.relu6:
        return _foamliu(module)
    return _classical(module) if module.scale == 1 and module.blocks[0] == 1 else _arcface(module)


def _iresnet(module: IResNet) -> Iterator[Entry]:
    yield from _conv("conv1", "conv1")
    yield from _norm("bn1", "bn1")
    yield from _prelu("prelu", "prelu")
    before = module.widths[0]
    for stage, (count, width, stride) in enumerate(zip(module.blocks, module.widths, module.strides, strict=True), 1):
        for i in range(count):
            theirs, ours = f"layer{stage}.{i}", f"layer{stage}_{i}"
            for layer in ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3"):
                kind = {"b": _norm, "c": _conv, "p": _prelu}[layer[0]]
                yield from kind(f"{theirs}.{layer}", f"{ours}/{layer}")
            if i == 0 and (stride != 1 or before != width):
                yield from _conv(f"{theirs}.downsample.0", f"{ours}/shortcut_conv")
                yield from _norm(f"{theirs}.downsample.1", f"{ours}/shortcut_bn")
            if module.squeeze_excitation:
                yield from _conv(f"{theirs}.se_block.fc1", f"{ours}/se/fc1")
                yield from _conv(f"{theirs}.se_block.fc2", f"{ours}/se/fc2")
        before = width
    yield from _norm("bn2", "bn2")
    yield from _dense("fc", bias=True)
    # The last scale is fixed at 1 in training, so no parameter here.
    yield from _norm("features", "features", scale="batch_stats")


def _arcface(module: MobileFaceNet) -> Iterator[Entry]:
    parts = ("0", "1", "2")

    def block(theirs: str, ours: str) -> Iterator[Entry]:
        yield from _block(f"{theirs}.layers", ours, parts)

    yield from block("layers.0", "stem")
    number = 1
    if module.blocks[0] == 1:
        yield from block("layers.1", "stem_depthwise")
        number += 1
    place = {}  # of each bottleneck among `layers`; those that follow one another are one entry there
    for part in bottlenecks(module.blocks, module.scale):
        stage, which = part.name.split("_")
        if which in ("down", "0"):
            place[stage, which] = f"layers.{number}.layers"
            number += 1
        theirs = place[stage, which] if which == "down" else f"{place[stage, '0']}.{which}.layers"
        for i, convolution in enumerate(("expand", "depthwise", "project")):
            yield from block(f"{theirs}.{i}", f"{part.name}/{convolution}")
    yield from block("conv_sep", "last")
    yield from _global("features.layers.0.layers.0", "features.layers.0.layers.1")
    yield from _dense("features.layers.2")
    yield from _norm("features.layers.3", "features")


def _classical(module: MobileFaceNet) -> Iterator[Entry]:
    parts = ("conv", "bn", "prelu")
    yield from _block("conv1", "stem", parts)
    yield from _block("conv2_dw", "stem_depthwise", parts)
    for part in bottlenecks(module.blocks, module.scale):
        stage, which = part.name.removeprefix("stage").split("_")
        theirs = f"conv_{stage}{int(stage) + 1}" if which == "down" else f"conv_{int(stage) + 1}.model.{which}"
        for name, convolution in (("conv", "expand"), ("conv_dw", "depthwise"), ("project", "project")):
            yield from _block(f"{theirs}.{name}", f"{part.name}/{convolution}", parts)
    yield from _block("conv_6_sep", "last", parts)
    yield from _global("conv_6_dw.conv", "conv_6_dw.bn")
    yield from _dense("linear")
    yield from _norm("bn", "features")


def _foamliu(module: MobileFaceNet) -> Iterator[Entry]:
    yield from _conv("conv1.0", "stem")
    yield from _norm("conv1.1", "stem/bn")
    yield from _conv("dw_conv.depthwise", "stem_depthwise")
    yield from _conv("dw_conv.pointwise", "stem_pointwise")
    yield from _norm("dw_conv.bn1", "stem_depthwise/bn")
    yield from _norm("dw_conv.bn2", "stem_pointwise/bn")
    yield from _conv("conv2.0", "last")
    yield from _norm("conv2.1", "last/bn")
    yield from _global("gdconv.depthwise", "gdconv.bn")
    yield Entry("conv3.weight", ("params", "fc", "kernel"), POINTWISE)
    yield Entry("conv3.bias", ("params", "fc", "bias"))
    yield from _norm("bn", "features")
    for i, part in enumerate(bottlenecks(module.blocks, module.scale)):
        theirs = f"features.{i}.conv"
        for names, convolution in ((("0.0", "0.1"), "expand"), (("1.0", "1.1"), "depthwise"), (("2", "3"), "project")):
            yield from _conv(f"{theirs}.{names[0]}", f"{part.name}/{convolution}")
            yield from _norm(f"{theirs}.{names[1]}", f"{part.name}/{convolution}/bn")


def _block(theirs: str, ours: str, parts: tuple[str, str, str]) -> Iterator[Entry]:
    """Convolution, BatchNorm, and PReLU but behind a bottleneck's last convolution."""
    conv, bn, prelu = parts
    yield from _conv(f"{theirs}.{conv}", ours)
    yield from _norm(f"{theirs}.{bn}", f"{ours}/bn")
    if not ours.endswith("/project"):
        yield from _prelu(f"{theirs}.{prelu}", f"{ours}/prelu")


def _conv(theirs: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.weight", ("params", *ours.split("/"), "kernel"), CONV)


def _norm(theirs: str, ours: str, scale: str = "params") -> Iterator[Entry]:
    path = ours.split("/")
    yield Entry(f"{theirs}.weight", (scale, *path, "scale"))
    yield Entry(f"{theirs}.bias", ("params", *path, "bias"))
    yield Entry(f"{theirs}.running_mean", ("batch_stats", *path, "mean"))
    yield Entry(f"{theirs}.running_var", ("batch_stats", *path, "var"))
    yield Entry(f"{theirs}.num_batches_tracked", ())


def _prelu(theirs: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.weight", ("params", *ours.split("/"), "slope"))


def _dense(theirs: str, bias: bool = False) -> Iterator[Entry]:
    yield Entry(f"{theirs}.weight", ("params", "fc", "kernel"), DENSE)
    if bias:
        yield Entry(f"{theirs}.bias", ("params", "fc", "bias"))


def _global(conv: str, bn: str) -> Iterator[Entry]:
    yield Entry(f"{conv}.weight", ("params", "global"), CONV)
    yield from _norm(bn, "global_bn")
