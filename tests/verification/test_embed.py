"""Embedding: picture plus mirror image, one compilation, nothing depends on the batch."""

import threading
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.core.errors import UserError
from sface_jax.recognition import features as embedding
from sface_jax.recognition.features import features
from sface_jax.recognition.network import Network, Preprocessing
from sface_jax.verification import protocol
from sface_jax.verification.embed import embed

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/recognition/verification.npz"


class Projection(nn.Module):
    """A linear network on the pixels in channel, row, column order; counts how often it is traced."""

    features: int = 16
    traced = 0

    @nn.compact
    def __call__(self, x, train=False):
        type(self).traced += 1
        kernel = self.param("kernel", nn.initializers.normal(), (x[0].size, self.features))
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ kernel


def projection(size: int, seed: int = 0) -> Network:
    module = Projection()
    return Network(module, module.init(jax.random.key(seed), jnp.zeros((1, size, size, 3))), Preprocessing(size=size))


def pictures(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"reference numbers are not at {FIXTURE}")
def test_mirror_image_as_the_reference_adds_it():
    reference = np.load(FIXTURE)
    kernel = {"params": {"kernel": jnp.asarray(reference["flip__projection"])}}
    network = Network(Projection(), kernel, Preprocessing(size=8))
    found = embed(network, reference["flip__images"].transpose(0, 2, 3, 1), batch_size=16)
    np.testing.assert_allclose(found, reference["flip__fused"], atol=1e-5)
    accuracy = protocol.kfold_accuracy(found[::2], found[1::2], reference["flip__issame"])
    np.testing.assert_allclose(accuracy.mean, reference["flip__acc_mean"], atol=1e-9)


def test_batches_and_padding_do_not_show():
    network, images = projection(8), pictures(13)
    whole = embed(network, images, batch_size=13)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embed(network, images, batch_size=5), whole, atol=1e-6)
    np.testing.assert_allclose(embed(network, images, [12, 3], batch_size=5), whole[[12, 3]], atol=1e-6)
    np.testing.assert_allclose(embed(network, images[:, :, ::-1]), whole, atol=1e-6)
    assert np.abs(embed(network, images, flip="none") - whole).max() > 1e-2


@pytest.mark.parametrize("most", [1, 2, 3])
def test_pieces_of_a_batch_do_not_show(monkeypatch, most):
    network, images = projection(8), pictures(10)
    whole = features(network, images, batch_size=7)
    monkeypatch.setattr(embedding, "CPU_PIXELS", most * 2 * 8 * 8)
    monkeypatch.setattr(embedding, "_compiled", embedding._compiled.__wrapped__)  # and nothing remembered
    np.testing.assert_allclose(features(network, images, batch_size=7), whole, atol=1e-5)


class Stored:
    """Pictures that are read batch by batch; remembers what was read, and fails at some picture."""

    def __init__(self, images, broken=None):
        self.stored, self.broken, self.read = images, broken, []

    def __len__(self):
        return len(self.stored)

    def images(self, indices):
        self.read.append(list(indices))
        if self.broken in self.read[-1]:
            raise UserError(f"picture {self.broken} cannot be read")
        return self.stored[indices]


def test_pictures_may_be_read_batch_by_batch():
    source, network = Stored(pictures(11)), projection(8)
    np.testing.assert_array_equal(embed(network, source, batch_size=4), embed(network, source.stored, batch_size=4))
    assert source.read == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 10]]


def test_the_next_batch_is_read_while_one_is_computed(monkeypatch):
    source, read, compiled = Stored(pictures(11)), threading.Event(), embedding._compiled
    monkeypatch.setattr(source, "images", lambda indices: (indices[0] == 4 and read.set(), source.stored[indices])[1])

    def slow(*args):
        def forward(variables, pixels):
            assert read.wait(10)
            return compiled(*args)(variables, pixels)

        return forward

    monkeypatch.setattr(embedding, "_compiled", slow)
    embed(projection(8), source, batch_size=4)


def test_a_picture_that_cannot_be_read_is_told():
    with pytest.raises(UserError, match="picture 9 cannot be read"):
        embed(projection(8), Stored(pictures(11), broken=9), batch_size=4)


def test_compiled_once():
    network, other_weights, images = projection(8), projection(8, seed=1), pictures(10)
    embed(network, images, batch_size=4)
    before = Projection.traced
    embed(network, images, batch_size=4)
    embed(other_weights, images[:7], batch_size=4)
    assert Projection.traced == before


def test_whole_batches_are_compiled_once_for_sets_of_all_lengths():
    network, images = projection(8), pictures(20)
    expected = features(network, images, batch_size=20)
    features(network, images, batch_size=6, whole_batches=True)
    before = Projection.traced
    for length in (1, 5, 6, 13):
        found = features(network, images[:length], batch_size=6, whole_batches=True)
        np.testing.assert_allclose(found, expected[:length], atol=1e-5)
    assert Projection.traced == before


def test_pictures_of_another_size_are_resized():
    small = np.full((2, 8, 8, 3), 200, np.uint8)
    large = np.full((2, 20, 20, 3), 200, np.uint8)
    network = projection(8)
    np.testing.assert_allclose(embed(network, large), embed(network, small), atol=1e-5)


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="no pictures"):
        embed(projection(8), pictures(0))
