"""MobileFaceNet against PyTorch: its three published forms, evaluated and trained."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.convert import recognizers
from sface_jax.core.errors import UserError
from sface_jax.recognition import network
from sface_jax.recognition.mobilefacenet import MobileFaceNet, _convolve, _shifted

WEIGHTS = Path(__file__).parents[3] / "shared/data/weights/mobilefacenet_foamliu.pt"

FORMS = {
    "classical": MobileFaceNet(blocks=(1, 1, 1, 1), scale=1, embedding_size=8),
    "arcface": MobileFaceNet(blocks=(1, 1, 1, 1), scale=2, embedding_size=8),
    "large": MobileFaceNet(blocks=(2, 1, 1, 1), scale=4, embedding_size=8),
}

# Of PyTorch 2.13 (float64), for the weights and pictures below: the first picture's embedding, evaluated and trained.
EXPECTED = {
    "classical": [
        [0.1862, 0.1646, -0.0861, -0.0076, 0.1070, 0.0956, 0.0705, -0.0966],
        [0.3037, 0.7594, 1.0161, 0.1855, -0.1602, 0.7508, 1.9333, 0.8109],
    ],
    "arcface": [
        [0.2550, -0.1908, -0.0546, 0.0809, 0.1379, 0.0338, 0.1232, 0.2663],
        [-0.3024, -1.8949, 0.6021, -0.0827, 0.2928, 0.1043, -0.3168, -1.3269],
    ],
    "large": [
        [0.1108, -0.0899, -0.0102, -0.1407, 0.0237, -0.0103, 0.3460, 0.0229],
        [0.1556, -0.7364, -1.3018, -0.3052, -1.6795, -0.3622, 0.2817, 0.7064],
    ],
    "open weights": [-0.9938, 0.9127, 0.2780, 0.5970, -0.5613, 0.6834, -1.0443, -1.6169],
}


def drawn(module: MobileFaceNet, size: int) -> dict[str, np.ndarray]:
    """A state dict in which every entry has numbers of its own, and activations stay of order one."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    arrays = recognizers.to_state_dict(module, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    for i, name in enumerate(sorted(arrays)):
        shape, x = arrays[name].shape, np.random.RandomState(1000 + i).standard_normal(arrays[name].shape)
        if len(shape) > 1:
            arrays[name] = (x / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        elif shape:
            level = {"weight": 1, "running_var": 2}.get(name.rpartition(".")[2], 0)
            arrays[name] = (level + 0.1 * x).astype(np.float32)
    return arrays


def pictures(count: int, size: int) -> np.ndarray:
    return np.random.RandomState(7).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_are_those_of_pytorch(form):
    arrays = drawn(FORMS[form], 48)
    module, variables, preprocessing = recognizers.load(arrays)
    assert (module, preprocessing) == (FORMS[form], network.Preprocessing(48))
    x = pictures(4, 48)

    @jax.jit
    def both(variables):
        return module.apply(variables, x), module.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    found = np.stack([embeddings[0] for embeddings in both(variables)])
    np.testing.assert_allclose(found, EXPECTED[form], atol=2e-4)


@pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no weights in {WEIGHTS}")
def test_open_weights():
    module, variables, preprocessing = recognizers.load(WEIGHTS)
    assert module == network.NAMED["mobilefacenet_relu6"] and preprocessing.mean == (0.485, 0.456, 0.406)
    embedding = jax.jit(module.apply)(variables, pictures(1, 112))
    np.testing.assert_allclose(embedding[0, :8], EXPECTED["open weights"], atol=1e-4)


@pytest.mark.parametrize(("side", "groups", "width", "stride"), [(5, 6, 6, 1), (7, 6, 6, 2), (6, 2, 6, 2)])
def test_shifted_additions_are_the_grouped_convolution_and_so_are_their_gradients(side, groups, width, stride):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (4, side, side, 6))
    kernel = jax.random.normal(keys[1], (3, 3, 6 // groups, width))

    def results(convolve):
        y, back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)
        return y, *back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    for found, expected in zip(*jax.jit(lambda: (results(_shifted), results(_convolve)))(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_body_in_bfloat16_gives_float32():
    module = MobileFaceNet(blocks=(1, 1, 1, 1), scale=1, embedding_size=4, dtype=jnp.bfloat16)
    variables = recognizers.load(drawn(module, 16))[1]
    embeddings = jax.jit(module.apply)(variables, pictures(2, 16))
    plain = jax.jit(module.clone(dtype=jnp.float32).apply)(variables, pictures(2, 16))
    assert embeddings.dtype == jnp.float32
    np.testing.assert_allclose(embeddings, plain, atol=0.1)


def test_a_config_names_it(tmp_path):
    named = network.architecture("mobilefacenet_large", embedding_size=64, dtype="bfloat16", dropout=0.0, blocks=())
    module = network.build(named)
    assert module == MobileFaceNet((2, 8, 12, 4), 4, 64, dtype=jnp.dtype("bfloat16"))
    assert network.build(network.attributes(module)) == module
    for key, value in {"blocks": (1, 1, 1, 1), "widths": (8,), "dropout": 0.4, "squeeze_excitation": True}.items():
        with pytest.raises(UserError, match=f"mobilefacenet has no {key}: set --config.{key}="):
            network.architecture("mobilefacenet", **{key: value})


def test_it_is_saved_and_loaded(tmp_path):
    module = FORMS["classical"]
    variables = recognizers.load(drawn(module, 16))[1]
    preprocessing = network.Preprocessing(16, std=(1.0, 1.0, 1.0), channel_order="bgr", alignment="tight")
    network.save(tmp_path, network.Network(module, variables, preprocessing))
    found = network.load(tmp_path)
    assert found.module == module and found.preprocessing == preprocessing
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
