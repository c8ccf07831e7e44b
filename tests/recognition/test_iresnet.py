"""The backbone against the published implementation (../shared/fixtures/recognition, section 1), and its own rules."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.convert import recognizers
from sface_jax.core.errors import UserError
from sface_jax.recognition import network
from sface_jax.recognition.iresnet import EPSILON, BatchNorm, IResNet

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "recognition"
needs_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason=f"no reference arrays in {FIXTURES}")


def damped_weights(name: str) -> dict[str, np.ndarray]:
    """The state dict of the fixtures' rule `damped`."""
    entries = json.loads((FIXTURES / f"{name}_keys.json").read_text())
    shapes = {entry: tuple(shape) for entry, shape, _ in entries}
    norms = {entry.removesuffix(".running_var") for entry in shapes if entry.endswith(".running_var")}
    weights = {}
    for i, entry in enumerate(sorted(shapes)):
        if entry.endswith("num_batches_tracked"):
            weights[entry] = np.zeros((), np.int64)
            continue
        shape, (owner, _, kind) = shapes[entry], entry.rpartition(".")
        x = np.random.RandomState(1000 + i).standard_normal(shape)
        if len(shape) == 4:
            x *= np.sqrt(1 / np.prod(shape[1:]))
        elif entry == "fc.weight":
            x /= np.sqrt(shape[1])
        elif owner.endswith("prelu"):
            x = 0.25 + 0.05 * x
        elif owner in norms and kind == "weight":
            x = (1 + 0.1 * x) * (0.25 if owner.endswith(".bn3") else 1)
        elif kind == "running_var":
            x = 1 + 0.1 * np.abs(x)
        else:
            x *= 0.1
        weights[entry] = x.astype(np.float32)
    return weights


def pictures(seed: int, n: int) -> jax.Array:
    uniform = np.random.RandomState(seed).uniform(-1, 1, (n, 3, 112, 112)).astype(np.float32)
    return jnp.asarray(uniform.transpose(0, 2, 3, 1))


def error(a, b) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / "iresnet.npz") as arrays:
        return {name.removeprefix("iresnet18__damped__"): arrays[name] for name in arrays if "18__damped" in name}


@pytest.fixture(scope="module")
def iresnet18():
    return recognizers.load(damped_weights("iresnet18"))[:2]


@needs_fixtures
def test_embedding_equals_the_published_network(reference, iresnet18):
    module, variables = iresnet18
    embedding = jax.jit(module.apply)(variables, pictures(7, 2))
    assert error(embedding, reference["embedding_f64"]) < 1e-5


@needs_fixtures
def test_training_step_equals_the_published_network(reference, iresnet18):
    module, variables = iresnet18
    weight = np.random.RandomState(9).standard_normal((4, 512)).astype(np.float32)

    @jax.jit
    def step(params, images):
        def loss(params):
            whole = {"params": params, "batch_stats": variables["batch_stats"]}
            embedding, changed = module.apply(whole, images, train=True, mutable=["batch_stats"])
            return (embedding * weight).sum(), (embedding, changed["batch_stats"])

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (embedding, stats)), gradient = step(variables["params"], pictures(8, 4))
    assert error(embedding, reference["train_embedding_f64"]) < 1e-4
    for norm, flax in {
        "bn1": stats["bn1"],
        "layer1_0_downsample_1": stats["layer1_0"]["shortcut_bn"],
        "bn2": stats["bn2"],
        "features": stats["features"],
    }.items():
        assert error(flax["mean"], reference[f"train_after_{norm}_running_mean"]) < 1e-4
        assert error(flax["var"], reference[f"train_after_{norm}_running_var"]) < 1e-4
    assert (stats["features"]["scale"] == variables["batch_stats"]["features"]["scale"]).all()
    for name, found in {
        "conv1_weight": gradient["conv1"]["kernel"].transpose(3, 2, 0, 1),
        "bn1_weight": gradient["bn1"]["scale"],
        "bn1_bias": gradient["bn1"]["bias"],
        "prelu_weight": gradient["prelu"]["slope"],
        "features_bias": gradient["features"]["bias"],
        "layer1_0_conv1_weight": gradient["layer1_0"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
    }.items():
        # The reference arrays, float32 themselves, are up to 3.2e-4 off float64.
        assert error(found, reference[f"train_grad_{name}"]) < 1e-3, name


@needs_fixtures
@pytest.mark.parametrize("name", ["iresnet34", "iresnet50", "iresnet50_se", "iresnet100"])
def test_entries_and_parameter_counts_of_published_networks(name):
    counts = json.loads((FIXTURES / "iresnet_check.json").read_text())["counts"][name]
    attributes = network.architecture(name.removesuffix("_se"), squeeze_excitation=name.endswith("_se"))
    module = network.build(attributes)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == counts["parameters_trainable"]
    entries = json.loads((FIXTURES / f"{name}_keys.json").read_text())
    found, _, _ = recognizers.load({entry: np.empty(shape, np.float32) for entry, shape, _ in entries})
    assert (found.blocks, found.squeeze_excitation) == (module.blocks, module.squeeze_excitation)


def drawn(module, images):
    """Variables of a module, drawn without compiling its initialisation."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes)


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"squeeze_excitation": True, "stem_stride": 1}])
def test_narrow_networks_give_float32_whatever_the_body(changes):
    stage = {"blocks": (1,), "widths": (8,), "strides": (2,), "embedding_size": 16}
    module = network.build(network.architecture("iresnet_narrow", **stage, **changes))
    x = jnp.linspace(-1, 1, 2 * 16 * 16 * 3).reshape(2, 16, 16, 3)
    variables = drawn(module, x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    embedding, changed = jax.jit(lambda v: module.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    assert embedding.shape == (2, 16) and np.isfinite(embedding).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((embedding, changed)))


def test_batch_norm_is_over_the_batch_and_remembers_the_unbiased_variance():
    x = jax.random.normal(jax.random.key(0), (5, 2, 2, 3)) * 4 + 1
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)
    y, changed = norm.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-4)
    unbiased = np.asarray(x).var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(changed["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)


def test_batch_norms_gradient_is_the_derivative():
    def plain(x, scale, bias):
        mean = x.mean((0, 1))
        return (x - mean) * jax.lax.rsqrt(jnp.square(x - mean).mean((0, 1)) + EPSILON) * scale + bias

    def written(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": bias, "var": scale}}
        return BatchNorm().apply(variables, x, True, mutable=["batch_stats"])[0]

    keys = jax.random.split(jax.random.key(1), 4)
    x, weight = jax.random.normal(keys[0], (4, 5, 3)) * 3 + 1, jax.random.normal(keys[1], (4, 5, 3))
    arguments = x, jax.random.normal(keys[2], (3,)), jax.random.normal(keys[3], (3,))
    found, expected = (
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) * weight).sum(), argnums=(0, 1, 2)))(*arguments)
        for f in (written, plain)
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_features_are_flattened_by_channel_height_and_width():
    module = IResNet(blocks=(1,), widths=(4,), strides=(1,), stem_stride=1, embedding_size=3)
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    variables = drawn(module, x)
    _, kept = jax.jit(lambda v: module.apply(v, x, capture_intermediates=True, mutable=["intermediates"]))(variables)
    features = kept["intermediates"]["bn2"]["__call__"][0]  # [1,h,w,c]
    flat = np.asarray(features).transpose(0, 3, 1, 2).reshape(1, -1)
    out = flat @ variables["params"]["fc"]["kernel"] + variables["params"]["fc"]["bias"]
    np.testing.assert_allclose(kept["intermediates"]["fc"]["__call__"][0], out, rtol=1e-5)


def test_bad_architectures_are_told_in_one_line():
    with pytest.raises(UserError, match="iresnet_narrow"):
        network.architecture("resnet50")
    with pytest.raises(UserError, match=re.escape("config.widths=(8, 8)")):
        network.architecture("iresnet_narrow", widths=(8, 8))
