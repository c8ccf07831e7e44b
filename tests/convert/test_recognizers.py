"""Recognisers come from state dicts as PyTorch has them, in whatever they are wrapped, and go back bit for bit."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.convert import array_files, recognizers, torch_files
from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.recognition import network
from sface_jax.recognition.iresnet import IResNet
from sface_jax.recognition.mobilefacenet import MobileFaceNet
from tests.convert.pytorch import same
from tests.recognition.test_iresnet import FIXTURES, damped_weights, error, needs_fixtures, pictures

TINY = IResNet(blocks=(1, 2), widths=(4, 8), strides=(2, 2), embedding_size=6)
MODULES = [
    TINY,
    TINY.clone(squeeze_excitation=True),
    MobileFaceNet((1, 1, 2, 1), 1, 6),
    MobileFaceNet((1, 1, 1, 1), 2, 5),
    MobileFaceNet((2, 1, 2, 1), 4, 5),
    MobileFaceNet(scale=1, embedding_size=7, relu6=True),
]


def drawn(module, size=32):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def arrays():
    return recognizers.to_state_dict(TINY, drawn(TINY))


def alike(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("module", MODULES, ids=[f"{type(m).__name__}-{i}" for i, m in enumerate(MODULES)])
def test_there_and_back(module):
    variables = drawn(module)
    arrays = recognizers.to_state_dict(module, variables)
    found, again, preprocessing = recognizers.load(arrays)
    assert found == module and preprocessing.size == 32 and alike(again, variables)
    assert same(recognizers.to_state_dict(network.Network(found, again, preprocessing)), arrays)
    assert len(arrays) - len(jax.tree.leaves(variables)) == sum(a.dtype == np.int64 for a in arrays.values()) > 5
    bare = {name: a for name, a in arrays.items() if not name.endswith("num_batches_tracked")}
    assert alike(recognizers.load(bare)[1], variables)
    relu6 = getattr(module, "relu6", False)
    assert preprocessing.mean == ((0.485, 0.456, 0.406) if relu6 else (0.5,) * 3)


@needs_fixtures
@pytest.mark.parametrize("name", ["iresnet18", "iresnet50", "iresnet50_se", "iresnet100"])
def test_published_networks_embed_as_in_pytorch_and_keep_their_entries(name):
    weights = damped_weights(name)
    module, variables, preprocessing = recognizers.load(weights)
    assert preprocessing == network.Preprocessing(112)
    with np.load(FIXTURES / "iresnet.npz") as reference:
        expected = reference[f"{name}__damped__embedding_f64"]
    assert error(jax.jit(module.apply)(variables, pictures(7, 2)), expected) < 1e-5
    entries = json.loads((FIXTURES / f"{name}_keys.json").read_text())
    back = recognizers.to_state_dict(module, variables)
    assert [(k, list(a.shape), a.dtype.name) for k, a in back.items()] == [tuple(entry) for entry in entries]
    assert all(np.array_equal(back[k], weights[k]) for k in weights)


@pytest.mark.parametrize("suffix", recognizers.SUFFIXES)
def test_files(tmp_path, arrays, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix in torch_files.SUFFIXES:
        torch_files.write(path, arrays)
    elif suffix == ".npz":
        files.write_npz(path, **arrays)
    else:
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    assert alike(recognizers.load(path)[1], drawn(TINY))
    opened = recognizers.open_network(str(path), "teacher")
    assert opened.module == TINY and opened.preprocessing == network.Preprocessing(32)


def test_a_folder_of_ours(tmp_path):
    preprocessing = network.Preprocessing(32, mean=(0.0, 0.0, 0.0))
    network.save(tmp_path, network.Network(TINY, drawn(TINY), preprocessing))
    module, variables, found = recognizers.load(tmp_path)
    assert (module, found) == (TINY, preprocessing) and alike(variables, drawn(TINY))


def test_wrappers_and_prefixes(arrays):
    head = {"head.kernel": np.zeros((6, 9), np.float32)}

    def under(prefix):
        return {prefix + name: a for name, a in arrays.items()}

    for wrapped in (
        {"epoch": 3, "state_dict": arrays, "optimizer": {"state": {}}},
        {"net_state_dict": under("module.")},
        {"checkpoint": 1, "model": {"state_dict": under("module.backbone.")}},
        {"state_dict_backbone": arrays, "state_dict_softmax_fc": head},
        {"state_dict": under("model.") | head},
        {"state_dict": under("module.encoder.") | {f"module.{k}": a for k, a in head.items()}},
        under("net."),
    ):
        assert alike(recognizers.load(wrapped)[1], drawn(TINY))


def test_half_precision_and_what_arrays_cannot_tell(arrays):
    halves = {name: a.astype(jnp.bfloat16) if a.ndim else a for name, a in arrays.items()}
    module, variables, preprocessing = recognizers.load(
        halves, network.Preprocessing(32, channel_order="bgr"), dropout=0.4, strides=(2, 1), stem_stride=2
    )
    assert module == TINY.clone(dropout=0.4, strides=(2, 1), stem_stride=2) and preprocessing.channel_order == "bgr"
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bn2.running_var": None, "fc.bias": None}, "missing: bn2.running_var, fc.bias"),
        ({"head.kernel": np.zeros((6, 9), np.float32)}, "left over: head.kernel"),
        ({"layer1.0.conv1.weight": np.zeros((4, 4, 1, 1), np.float32)}, "layer1.0.conv1.weight has the shape"),
        ({"bn2.bias": np.zeros(8, np.int64)}, "bn2.bias holds int64"),
        ({"layer2.900000000.bn1.bias": np.zeros(8, np.float32)}, "some are missing"),
        ({"fc.weight": None}, "not the arrays of an iResNet"),
        ({"fc.weight": np.zeros((6, 0), np.float32)}, "no fc.weight of 2 axes"),
        ({"bn2.bias": [1, 2]}, "no state dict"),
    ],
)
def test_another_state_dict_is_refused_in_one_line(arrays, change, told):
    changed = {name: array for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(UserError, match=told) as raised:
        recognizers.load(changed)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_errors_name_the_file_and_the_key(tmp_path, arrays):
    torch_files.write(tmp_path / "net.pth", {"w": np.zeros(3, np.float32)})
    array_files.write(tmp_path / "gan.npz", {"G": {"w": np.zeros(3, np.float32)}})
    for name in ("net.pth", "gan.npz", "nowhere.pth", "net.onnx", "nowhere"):
        with pytest.raises(UserError, match=rf"{name}.*--config.teacher") as raised:
            recognizers.open_network(str(tmp_path / name), "teacher")
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="for 32 pixels, and the preprocessing gives 112"):
        recognizers.load(arrays, network.Preprocessing())
    with pytest.raises(UserError, match="variables of this IResNet"):
        recognizers.to_state_dict(TINY, {"params": {}})
