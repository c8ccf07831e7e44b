"""What pictures are looked at through: a recogniser's folder, Inception weights, or pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sface_jax.convert import embedders, recognizers, torch_files
from sface_jax.core import files
from sface_jax.core import pictures as images
from sface_jax.core.errors import UserError
from sface_jax.recognition import network
from sface_jax.recognition.iresnet import IResNet
from sface_jax.verification.embed import embed
from tests.gan import inception_arrays
from tests.verification import tiny


@pytest.fixture
def pictures() -> np.ndarray:
    return tiny.render(np.array([0, 0, 1]), np.array([0, 1, 0]))


def test_a_recogniser_sees_what_verification_sees(tmp_path, pictures):
    folder = epath.Path(tmp_path) / "authentic"
    tiny.write_network(folder)
    embedder = embedders.open_embedder(str(folder))
    assert embedder.name == "authentic"

    def alike(x):
        features = embedder.apply(embedder.variables, x)
        return features[0] @ features[2], features

    gradient, features = jax.jit(jax.grad(alike, has_aux=True))(images.from_uint8(pictures))
    expected = embed(tiny.untrained(), pictures, flip="none")
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.isfinite(gradient).all()
    assert [bool(np.any(g)) for g in gradient] == [True, False, True]


def test_a_recogniser_in_a_file_is_the_one_in_a_folder(tmp_path, pictures):
    module = IResNet(blocks=(1, 1), widths=(4, 8), strides=(2, 2), embedding_size=6)
    inputs = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes)
    trained = network.Network(module, variables, network.Preprocessing(32))
    network.save(tmp_path / "student", trained)
    torch_files.write(tmp_path / "student.pth", recognizers.to_state_dict(trained))
    x = images.from_uint8(pictures)
    found = [embedders.open_embedder(str(tmp_path / name)) for name in ("student", "student.pth")]
    assert [embedder.name for embedder in found] == ["student", "student"]
    look = jax.jit(found[0].apply)
    np.testing.assert_array_equal(*(look(embedder.variables, x) for embedder in found))


def test_pixels_tell_pictures_but_not_their_brightness(pictures):
    embedder = embedders.open_embedder("pixels")
    look = jax.jit(lambda x: embedder.apply(embedder.variables, x))
    x = images.from_uint8(pictures)
    features = look(x)
    assert features.shape == (3, 16 * 16 * 3)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert features[0] @ features[1] > features[0] @ features[2]
    np.testing.assert_allclose(look(0.5 * x - 0.1), features, atol=1e-5)
    assert look(x[:, :8, :4]).shape == (3, 8 * 4 * 3), "a small picture as it is"
    grey = jax.value_and_grad(lambda x: embedder.apply({}, x).sum())(jnp.full((1, 4, 4, 3), 0.3))
    assert all(np.isfinite(value).all() for value in grey), "one colour has no features, and no gradient that is nan"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_inception_from_a_file_of_weights(tmp_path, suffix):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in inception_arrays.shapes().items()}
    path = tmp_path / f"inception{suffix}"
    if suffix == ".npz":
        files.write_npz(path, **arrays)
    elif suffix == ".pth":
        torch_files.write(path, arrays)
    else:
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    embedder = embedders.open_embedder(str(path))
    seen = jax.eval_shape(embedder.apply, embedder.variables, jax.ShapeDtypeStruct((3, 32, 32, 3), jnp.float32))
    assert (seen.shape, seen.dtype) == ((3, 2048), jnp.float32)


def test_what_nothing_can_be_looked_at_through(tmp_path):
    gan = tmp_path / "gan"
    files.write_json(gan / "network.json", {"generator": {}})
    files.write_npz(tmp_path / "other.npz", weight=np.zeros(3))
    files.write_bytes(tmp_path / "cut.npz", b"PK\x03\x04")
    np.savez(tmp_path / "objects.npz", weight=np.array([print], object))
    files.write_bytes(tmp_path / "picture.png", b"")
    for name, told in {
        "nowhere": "there is no .*name a recogniser",
        "gan": "holds no recogniser",
        "other.npz": "other.npz: these are not the arrays of an iResNet",
        "cut.npz": "cannot be read",
        "objects.npz": "cannot be read .*allow_pickle",
        "picture.png": "nothing to look at",
    }.items():
        with pytest.raises(UserError, match=told):
            embedders.open_embedder(str(tmp_path / name))
