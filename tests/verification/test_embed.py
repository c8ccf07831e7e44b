"""Embedding: picture plus mirror image, one compilation, nothing depends on the batch."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_pictures_may_be_read_batch_by_batch():
    class Stored:
        def __init__(self, images):
            self.stored, self.largest = images, 0

        def __len__(self):
            return len(self.stored)

        def images(self, indices):
            self.largest = max(self.largest, len(indices))
            return self.stored[indices]

    source, network = Stored(pictures(11)), projection(8)
    np.testing.assert_array_equal(embed(network, source, batch_size=4), embed(network, source.stored, batch_size=4))
    assert source.largest == 4


def test_compiled_once():
    network, other_weights, images = projection(8), projection(8, seed=1), pictures(10)
    embed(network, images, batch_size=4)
    before = Projection.traced
    embed(network, images, batch_size=4)
    embed(other_weights, images[:7], batch_size=4)
    assert Projection.traced == before


def test_pictures_of_another_size_are_resized():
    small = np.full((2, 8, 8, 3), 200, np.uint8)
    large = np.full((2, 20, 20, 3), 200, np.uint8)
    network = projection(8)
    np.testing.assert_allclose(embed(network, large), embed(network, small), atol=1e-5)


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="no pictures"):
        embed(projection(8), pictures(0))
