"""Recognisers in `.onnx` files embed within our programs as they do outside, whatever their layout and batch."""

import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.convert import export, onnx_networks, recognizers
from sface_jax.core.errors import Damaged, UserError
from sface_jax.recognition.features import features
from sface_jax.recognition.iresnet import IResNet
from sface_jax.recognition.network import Network, Preprocessing, fingerprint
from tests.convert.test_export import drawn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDE, WIDTH = 12, 5
PICTURES = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)
KERNEL = np.random.default_rng(1).normal(size=(3 * SIDE * SIDE, WIDTH)).astype(np.float32) / 20


def graph(rows, shape, first=(), outputs=(("e", ("rows", WIDTH)),), real=onnx.TensorProto.FLOAT, extra=(), inputs=()):
    """A linear network on the pixels in the order in which they come."""
    helper = onnx.helper
    kind = helper.tensor_dtype_to_np_dtype(real)
    flat = np.array([rows if isinstance(rows, int) else -1, 3 * SIDE * SIDE])
    nodes = [
        *first,
        helper.make_node("Reshape", ["y" if first else "x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "kernel"], ["e"]),
        *extra,
    ]
    weights = {"flat": flat, "kernel": KERNEL.astype(kind), "half": np.array(0.5, kind), "last": np.array([2, 3])}
    made = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", real, [rows, *shape]), *inputs],
        [helper.make_tensor_value_info(name, real, [rows, *rest[1:]]) for name, rest in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def written(path, content):
    path.write_bytes(content)
    return path


def by_hand(first=True):
    x = np.asarray(Preprocessing(SIDE)(PICTURES))
    return (x.transpose(0, 3, 1, 2) if first else x).reshape(len(x), -1) @ KERNEL


CHANNELS_FIRST, CHANNELS_LAST = (3, SIDE, SIDE), (SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    network = drawn(IResNet((1, 1), (4, 8), (2, 2), embedding_size=6))
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export.export(network, path)
    return network, path


def test_our_export_embeds_as_the_network_it_was(exported):
    network, path = exported
    there = recognizers.open_network(str(path), "network")
    assert there.preprocessing == network.preprocessing and there.variables == {}
    images = np.random.default_rng(2).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    expected = features(network, images, batch_size=4)
    found = features(there, images, batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    module, variables, preprocessing = recognizers.load(path)
    x = jnp.asarray(preprocessing(images[:3]))
    np.testing.assert_allclose(module.apply(variables, x, train=False), found[:3, 0], atol=1e-4)


@pytest.mark.parametrize("rows", ["N", 1, 3])
@pytest.mark.parametrize("shape", [CHANNELS_FIRST, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_layouts_and_batches(tmp_path, rows, shape):
    network = onnx_networks.read(written(tmp_path / "net.onnx", graph(rows, shape)))
    assert network.preprocessing == Preprocessing(SIDE)
    found = features(network, PICTURES, batch_size=7, mirror=False)[:, 0]
    np.testing.assert_allclose(found, by_hand(shape is CHANNELS_FIRST), atol=1e-5)


def test_a_batch_that_is_promised_and_not_kept(tmp_path):
    content = onnx.load_model_from_string(graph(1, CHANNELS_FIRST))
    content.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    network = onnx_networks.read(written(tmp_path / "net.onnx", content.SerializeToString()))
    np.testing.assert_allclose(features(network, PICTURES, mirror=False)[:, 0], by_hand(), atol=1e-5)


def test_half_precision_and_several_outputs(tmp_path):
    """Axes of length one behind the row do not count; a map of features is no embedding."""
    half = onnx.TensorProto.FLOAT16
    extra = [onnx.helper.make_node("Unsqueeze", ["e", "last"], ["row"])]
    outputs = (("x", (0, *CHANNELS_FIRST)), ("row", (0, WIDTH, 1, 1)))
    content = graph("N", CHANNELS_FIRST, outputs=outputs, real=half, extra=extra)
    found = features(onnx_networks.read(written(tmp_path / "net.onnx", content)), PICTURES, mirror=False)[:, 0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(), atol=2e-2)


def test_a_graph_with_a_normalisation_of_its_own(tmp_path):
    first = [onnx.helper.make_node("Sub", ["x", "half"], ["z"]), onnx.helper.make_node("Mul", ["z", "half"], ["y"])]
    network = onnx_networks.read(written(tmp_path / "net.onnx", graph("N", CHANNELS_FIRST, first=first)))
    np.testing.assert_allclose(network.preprocessing(PICTURES), PICTURES, atol=1e-3)


def test_pictures_of_any_size_are_of_the_usual_one(tmp_path):
    nodes = [onnx.helper.make_node("ReduceMean", ["x"], ["e"], axes=[2, 3], keepdims=0)]
    ends = (
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 3, "h", "w"])],
        [onnx.helper.make_tensor_value_info("e", 1, ["N", 3])],
    )
    made = onnx.helper.make_graph(nodes, "mean", *ends)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    network = onnx_networks.read(written(tmp_path / "net.onnx", model.SerializeToString()))
    assert network.preprocessing.size == 112
    found = features(network, PICTURES, mirror=False)[:, 0]
    np.testing.assert_allclose(found, PICTURES.mean((1, 2)) / 127.5 - 1, atol=1e-2)


def test_equal_files_are_equal_networks(tmp_path):
    content = graph("N", CHANNELS_FIRST)
    a, b = (onnx_networks.read(written(tmp_path / f"{name}.onnx", content)) for name in "ab")
    other = onnx_networks.read(written(tmp_path / "c.onnx", graph(1, CHANNELS_FIRST)))
    assert a.module == b.module != other.module and hash(a.module) == hash(b.module)
    assert fingerprint(a) == fingerprint(b) != fingerprint(other)


# Large enough for a copy of a device's share not to be made at once, which used to end in a deadlock.
ON_EIGHT_DEVICES = """
import sys
import jax, numpy as np
from sface_jax.convert import onnx_networks
from sface_jax.recognition.features import features
from sface_jax.recognition.network import fingerprint
network = onnx_networks.read(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (33, 112, 112, 3), dtype=np.uint8)
rows = features(network, images, batch_size=16)[:, 0]
np.testing.assert_allclose(rows, images.mean((1, 2)) / 127.5 - 1, atol=1e-5)
print(jax.device_count(), fingerprint(network))
"""


def test_on_eight_devices_of_another_process(tmp_path):
    nodes = [onnx.helper.make_node("ReduceMean", ["x"], ["e"], axes=[2, 3], keepdims=0)]
    ends = (
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 3, 112, 112])],
        [onnx.helper.make_tensor_value_info("e", 1, ["N", 3])],
    )
    made = onnx.helper.make_graph(nodes, "mean", *ends)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = written(tmp_path / "net.onnx", model.SerializeToString())
    run = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES, str(path)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["8", fingerprint(onnx_networks.read(path))]


def test_what_is_no_recogniser_is_told_in_a_line(tmp_path):
    extra = [onnx.helper.make_node("ReduceMean", ["e"], ["m"])]
    second = [onnx.helper.make_tensor_value_info("half_of_it", onnx.TensorProto.FLOAT, [])]
    for content, kind, told in (
        (b"", Damaged, "not a file of ONNX"),
        (b"\x80\x02}q\x00.", Damaged, "not a file of ONNX"),
        (graph("N", CHANNELS_FIRST)[:-40], Damaged, "not a file of ONNX"),
        (graph("N", (SIDE, 3, SIDE)), UserError, "not pictures of three channels"),
        (graph("N", (3, SIDE * SIDE)), UserError, "not pictures of three channels"),
        (graph("N", (3, 6, 24)), UserError, "6 x 24 pixels, and only square"),
        (graph(2**40, CHANNELS_FIRST), UserError, "numbers at once"),
        (graph("N", (3, 2**40, 2**40)), UserError, "numbers at once"),
        (graph("N", CHANNELS_FIRST, inputs=second), UserError, "takes x tensor.* half_of_it"),
        (graph("N", CHANNELS_FIRST, outputs=(("x", (0, *CHANNELS_FIRST)),)), UserError, "row of numbers for each"),
        (graph("N", CHANNELS_FIRST, outputs=(("m", (0, 1)),), extra=extra), UserError, "row of numbers for each"),
    ):
        path = written(tmp_path / "net.onnx", content)
        with pytest.raises(kind, match=f"net.onnx: .*{told}") as raised:
            onnx_networks.read(path)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
    with pytest.raises(UserError, match="net.onnx: .*config.matcher"):
        recognizers.open_network(str(path), "matcher")
    with pytest.raises(UserError, match="there is no network"):
        onnx_networks.read(tmp_path / "nowhere.onnx")


def test_metadata_of_ours_that_was_altered(tmp_path, exported):
    model = onnx.load(exported[1])
    for entry in model.metadata_props:
        if entry.key == "mean":
            entry.value = "half"
    with pytest.raises(Damaged, match="metadata is not what was written"):
        onnx_networks.read(written(tmp_path / "net.onnx", model.SerializeToString()))


def test_a_missing_package_is_told(tmp_path, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install '\.\[convert\]'"):
        onnx_networks.read(exported[1])


def test_it_works_within_the_doctors_module(tmp_path):
    from sface_jax.verification.doctor import AnyColours

    inner = onnx_networks.read(written(tmp_path / "net.onnx", graph("N", CHANNELS_FIRST)))
    colours = {"order": np.arange(3), "mean": np.full(3, 0.5, np.float32), "std": np.full(3, 0.5, np.float32)}
    plain = Preprocessing(SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    network = Network(AnyColours(inner.module), {"colours": colours}, plain)
    np.testing.assert_allclose(features(network, PICTURES, mirror=False)[:, 0], by_hand(), atol=1e-5)
