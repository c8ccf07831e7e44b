"""The classifier on one device: the cross entropy of its margin, of all classes or of some."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.core import mesh as meshes
from sface_jax.recognition import head, losses, margins, methods

CLASSES, ROWS, SIZE = 40, 6, 8


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    draw = rng.normal(size=(ROWS, SIZE)) * 7, rng.integers(0, CLASSES, ROWS), rng.normal(size=(CLASSES, SIZE))
    return [jnp.asarray(x, jnp.int32 if x.dtype == int else jnp.float32) for x in draw]


def classify(arrays, rate, spec="arcface(scale=16)"):
    embeddings, labels, weight = arrays
    method = methods.from_spec(spec)
    state = {name: jnp.float32(value) for name, value in method.init.items()}

    def loss(weight):
        found = head.classify(
            method, embeddings, labels, weight, state, jax.random.key(1),
            num_classes=CLASSES, mesh=meshes.make_mesh(), sample_rate=rate,
        )  # fmt: skip
        return found.loss, found

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(weight)
    return found, np.asarray(gradient)


def test_the_loss_is_the_cross_entropy_of_the_margin(arrays):
    embeddings, labels, weight = arrays
    found, _ = classify(arrays, 1.0)
    cosine = losses.normalise(embeddings) @ losses.normalise(weight).T
    expected = losses.classification(margins.arcface(cosine, labels, 16.0), labels)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    assert found.accuracy == (cosine.argmax(1) == labels).mean() and found.sampled.all()


def test_sampled_classes_are_those_of_the_batch_and_some_others(arrays):
    embeddings, labels, weight = arrays
    found, gradient = classify(arrays, 0.25)
    sampled = np.asarray(found.sampled)
    assert sampled.sum() == 10 and sampled[labels].all()
    assert not gradient[~sampled].any() and (gradient[sampled] != 0).any(1).all()
    order = np.flatnonzero(sampled)
    cosine = losses.normalise(embeddings) @ losses.normalise(weight[order]).T
    among = jnp.asarray(np.searchsorted(order, labels))
    expected = losses.classification(margins.arcface(cosine, among, 16.0), among)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    everything, _ = classify(arrays, 0.01)  # never fewer than the batch may have
    assert everything.sampled.sum() == ROWS and everything.sampled[labels].all()


def test_what_a_margin_keeps_moves_on(arrays):
    state = classify(arrays, 1.0, "adaface(t_alpha=1.0)")[0].state
    norms = np.linalg.norm(arrays[0], axis=1)
    np.testing.assert_allclose([state["mean"], state["std"]], [norms.mean(), norms.std(ddof=1)], rtol=1e-5)
    assert classify(arrays, 1.0, "curricularface")[0].state["t"] != 0
