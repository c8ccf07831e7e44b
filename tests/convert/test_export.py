"""Recognisers in other formats embed as ours do, each in its own runtime; the stage finds out what it is given."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import convert as recipe
from sface_jax.convert import convert, export, onnx_graph, onnx_writer, recognizers, torch_files
from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.recognition import network as networks
from sface_jax.recognition.iresnet import IResNet
from sface_jax.recognition.mobilefacenet import MobileFaceNet
from sface_jax.recognition.network import Network, Preprocessing
from tests.convert.pytorch import same

SIZE = 32
RESIDUAL = IResNet((1, 2), (4, 8), (2, 2), embedding_size=6, dropout=0.4, squeeze_excitation=True, dtype=jnp.bfloat16)
MOBILE = MobileFaceNet((1, 1, 1, 1), scale=1, embedding_size=6, relu6=True)
PRELU = MobileFaceNet((2, 1, 1, 1), scale=1, embedding_size=6)


def drawn(module) -> Network:
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32))
    rng = np.random.default_rng(0)

    def fill(leaf):
        if len(leaf.shape) < 2:
            return rng.uniform(0.2, 1.2, leaf.shape).astype(np.float32)
        return (rng.standard_normal(leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])).astype(np.float32)

    preprocessing = Preprocessing(SIZE, mean=(0.4, 0.5, 0.6), channel_order="bgr")
    return Network(module, dict(jax.tree.map(fill, shapes)), preprocessing)


@pytest.fixture(scope="module")
def residual():
    return drawn(RESIDUAL)


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(-1, 1, (3, SIZE, SIZE, 3)).astype(np.float32)


def ours(network, images):
    network = export.in_float32(network)
    return np.asarray(jax.jit(network.module.apply)(network.variables, images))


def assert_alike(theirs, expected):
    assert (theirs.shape, theirs.dtype) == (expected.shape, np.float32)
    assert np.abs(theirs - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("module", [RESIDUAL, MOBILE, PRELU], ids=["iresnet", "relu6", "prelu"])
def test_onnx(tmp_path, images, module):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    network, path = drawn(module), tmp_path / "net.onnx"
    export.export(network, path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    there = images.transpose(0, 3, 1, 2)
    (theirs,) = session.run(["embeddings"], {"images": there})
    assert_alike(theirs, ours(network, images))
    for rows in (0, 1):
        np.testing.assert_allclose(session.run(None, {"images": there[:rows]})[0], theirs[:rows], rtol=1e-4, atol=1e-4)

    model = onnx.load(path)
    operations = collections.Counter(node.op_type for node in model.graph.node)
    convolutions = sum(kernel.ndim == 4 for kernel in jax.tree.leaves(network.variables)) - hasattr(module, "relu6")
    assert operations["Conv"] == convolutions
    assert not {"Transpose", "Slice", "Expand", "Where"} & operations.keys()
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["size"], told["channel_order"], told["alignment"]) == (str(SIZE), "bgr", "arcface")
    assert json.loads(told["mean"]) == [0.4, 0.5, 0.6]
    assert networks.build(json.loads(told["architecture"])) == module.clone(dtype=jnp.dtype("float32"))
    assert model.opset_import[0].version >= 17


def test_weights_keep_their_names_and_numbers(tmp_path, residual):
    onnx = pytest.importorskip("onnx")
    export.export(residual, tmp_path / "net.onnx")
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(tmp_path / "net.onnx").graph.initializer}
    parameters = residual.variables["params"]["layer1_0"]
    np.testing.assert_array_equal(weights["layer1_0.conv2.weight"], parameters["conv2"]["kernel"].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(weights["layer1_0.prelu.slope"].ravel(), parameters["prelu"]["slope"])
    assert {"layer1_0.bn3.scale", "layer1_0.se.fc1.weight", "fc.weight", "features.bias"} <= weights.keys()


def test_what_onnx_is_not_taught(tmp_path):
    pytest.importorskip("onnx")
    for function, told in (
        (lambda x: jnp.cumsum(x.mean((1, 2)), 1), "cumsum"),
        (lambda x: jnp.where(x > 0.5, x, 0).mean((1, 2)), "gt"),
        (lambda x: x.reshape(-1, 3), "reshape"),
        (lambda x: x.mean((0, 1)), "reduce_sum"),
        (lambda x: x.mean((1, 2))[None].sum(1), "broadcast_in_dim"),
    ):
        with pytest.raises(UserError, match=f"cannot hold .*{told}.*a .stablehlo file"):
            onnx_writer.write(function, 8)


def test_other_operations_in_any_order_of_axes(tmp_path, images):
    """What a backbone of someone else may do."""
    runtime = pytest.importorskip("onnxruntime")
    weight, table = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)

    def function(x):
        x = x[:, ::4, 1::4] * table - 0.25 * weight  # [n,8,8,3]
        y = 2 - jax.nn.relu(x) / 3 + jax.nn.sigmoid(x)
        y = jnp.broadcast_to(y.mean((1, 2), keepdims=True), y.shape) + jnp.minimum(x, 0.5) * y
        y = (y - x.transpose(0, 2, 1, 3)).reshape(len(y), 64, 3)
        return y.sum(1) @ table[0, :3]

    graph, width = onnx_writer.write(function, SIZE)
    assert width == 3
    model = graph.model((3, SIZE, SIZE), (3,), "", {})
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert_alike(session.run(None, {"images": images.transpose(0, 3, 1, 2)})[0], np.asarray(jax.jit(function)(images)))


def test_stablehlo_takes_any_number_of_pictures(tmp_path, residual, images):
    export.export(residual, tmp_path / "net.stablehlo")
    exported = jax.export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    expected = ours(residual, images)
    assert_alike(np.asarray(exported.call(images)), expected)
    assert exported.call(images[:1]).shape == (1, 6)
    told = files.read_json(tmp_path / "net.json")
    assert told["preprocessing"]["mean"] == [0.4, 0.5, 0.6] and told["architecture"]["dropout"] == 0.4


@pytest.mark.parametrize("suffix", recognizers.SUFFIXES)
def test_state_dicts_in_a_plain_reader(tmp_path, residual, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        found = pytest.importorskip("safetensors.numpy")
    export.export(residual, path)
    if suffix in torch_files.SUFFIXES:
        arrays = torch_files.read(path)
    else:
        arrays = dict(np.load(path)) if suffix == ".npz" else found.load_file(path)
    assert same(arrays, recognizers.to_state_dict(residual))
    assert files.read_json(tmp_path / "net.json")["preprocessing"]["channel_order"] == "bgr"


def has(package):
    return importlib.util.find_spec(package) is not None


def run(source, output, workdir, **changes):
    config = recipe.get_config()
    config.update({"source": str(source), "output": str(output), **changes})
    return convert.run(config, epath.Path(workdir))


def test_the_stage_in_both_directions(tmp_path, residual):
    network = dataclasses.replace(residual, preprocessing=Preprocessing(SIZE))
    state = tmp_path / "student.pth"
    torch_files.write(state, recognizers.to_state_dict(network))
    told = run(state, "", tmp_path, channel_order="bgr", mean=(0.4, 0.5, 0.6))
    assert told == {"network": "IResNet", "image_size": SIZE, "embedding_size": 6}
    folder = tmp_path / "recognition" / "student"
    loaded = networks.load(folder)
    assert loaded.preprocessing == residual.preprocessing
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, network.variables)

    (folder / "README.md").write_text("its card")
    suffixes = [".stablehlo", ".pth"] + [".onnx"] * has("onnxruntime")
    for number, suffix in enumerate(suffixes):
        told = run(folder, tmp_path / f"{number}" / f"net{suffix}", tmp_path)
        assert told["difference"] < 1e-5
        assert (tmp_path / f"{number}" / "net.README.md").read_text() == "its card"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="there already"):
        run(folder, tmp_path / "0" / "net.pth", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_that_is_wrong_is_not_kept(tmp_path, residual, monkeypatch):
    embed = export.embed
    monkeypatch.setattr(export, "embed", lambda path, images: embed(path, images) + np.float32(0.1))
    with pytest.raises(UserError, match="differ .* more than 1e-04: nothing is kept"):
        convert.to_file(residual, epath.Path(tmp_path) / "net.npz")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_told(tmp_path, residual, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if has("onnx"):
        assert convert.to_file(residual, epath.Path(tmp_path) / "net.onnx")["difference"] is None
    monkeypatch.setitem(sys.modules, "onnx.checker", None)
    with pytest.raises(UserError, match=r"install '\.\[convert\]'"):
        export.export(residual, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_a_network_beyond_two_gigabytes(monkeypatch, tmp_path, residual):
    pytest.importorskip("onnx")
    monkeypatch.setattr(onnx_graph, "LIMIT", 1000)
    with pytest.raises(UserError, match="larger than 2 GB.*stablehlo"):
        export.export(residual, tmp_path / "net.onnx")


def test_mistakes_are_told_before_anything_is_written(tmp_path, residual):
    folder = tmp_path / "student"
    networks.save(folder, residual)
    state = tmp_path / "state.npz"
    files.write_npz(state, **recognizers.to_state_dict(residual))
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "strange.npz", weight=np.zeros(1))
    before = sorted(tmp_path.rglob("*"))
    for source, output, changes, told in (
        ("", "", {}, "set --config.source"),
        (folder, "", {}, "there already|which becomes a file"),
        (folder, tmp_path / "new", {}, "which becomes a file: set --config.output=FILE"),
        (folder, tmp_path / "new.tflite", {}, "which becomes a file"),
        (state, tmp_path / "new.tflite", {}, "no format known here"),
        (folder, tmp_path / "net.onnx", {}, "there already"),
        (tmp_path / "net.onnx", "", {}, "exported program"),
        (tmp_path / "empty", "", {}, "neither a generator nor a recogniser"),
        (tmp_path / "strange.npz", "", {}, "iResNet"),
        (folder, tmp_path / "new.npz", {"channel_order": "rbg"}, 'choose "rgb"'),
        (folder, tmp_path / "new.npz", {"mean": (0.5,)}, "give three"),
    ):
        with pytest.raises(UserError, match=told):
            run(source, output, tmp_path, **changes)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="take a file in .onnx"):
        export.export(residual, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()
