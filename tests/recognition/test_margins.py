"""Margins and losses: the properties they are named for, and the published implementations' figures."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sface_jax.recognition import losses, margins
from sface_jax.recognition.head import ClassifierHead

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "recognition"
needs_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason=f"no reference arrays in {FIXTURES}")

N, C, SCALE = 3, 4, 64.0
COSINES = hnp.arrays(np.float32, (N, C), elements=st.floats(-1, 1, width=32) | st.sampled_from([-1.0, 0.0, 1.0]))
LABELS = hnp.arrays(np.int32, N, elements=st.integers(0, C - 1))
FUNCTIONS = {
    "cosface": lambda c, y, m: margins.cosface(c, y, SCALE, m),
    "arcface": lambda c, y, m: margins.arcface(c, y, SCALE, m),
    "combined_arc": lambda c, y, m: margins.combined_margin(c, y, SCALE, 1.0, m, 0.0),
    "combined_cos": lambda c, y, m: margins.combined_margin(c, y, SCALE, 1.0, 0.0, m),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
quick = settings(max_examples=25, deadline=None)


@every_function
@quick
@given(cosine=COSINES, labels=LABELS)
def test_without_a_margin_it_is_the_softmax(name, cosine, labels):
    found = FUNCTIONS[name](jnp.asarray(cosine), jnp.asarray(labels), 0.0)
    np.testing.assert_allclose(found, margins.softmax(jnp.asarray(cosine), jnp.asarray(labels), SCALE), atol=2e-4)


@every_function
@quick
@given(cosine=COSINES, labels=LABELS, margin=st.sampled_from([0.1, 0.35, 0.5]))
def test_only_the_own_class_changes_and_it_rises_with_its_cosine(name, cosine, labels, margin):
    cosine = np.clip(cosine, -0.85, 1)  # theta + 0.5 < pi, where ArcFace is monotone
    logits = np.asarray(FUNCTIONS[name](jnp.asarray(cosine), jnp.asarray(labels), margin))
    own = labels[:, None] == np.arange(C)
    np.testing.assert_allclose(logits[~own], SCALE * cosine[~own], atol=2e-4)
    assert (logits[own] < SCALE * cosine[own]).all()
    order = np.argsort(cosine[own], kind="stable")
    assert (np.diff(logits[own][order]) >= -2e-4).all()


@every_function
@quick
@given(cosine=COSINES, labels=LABELS)
def test_gradients_are_finite_everywhere(name, cosine, labels):
    def loss(c):
        return losses.classification(FUNCTIONS[name](c, jnp.asarray(labels), 0.5), jnp.asarray(labels))

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(cosine))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_gradients_at_the_poles():
    cosine, labels = jnp.array([[1.0, -1.0], [-1.0, 1.0]]), jnp.array([0, 0])
    gradient = jax.jit(jax.grad(lambda c: margins.arcface(c, labels, SCALE, 0.5).sum()))(cosine)
    np.testing.assert_allclose(gradient[:, 0], SCALE * np.cos(0.5), rtol=1e-6)
    embeddings = jnp.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    assert np.isfinite(jax.jit(jax.grad(lambda e: losses.normalise(e).sum()))(embeddings)).all()


HEADS = {
    "softmax": lambda c, y: margins.softmax(c, y, 64.0),
    "cosface": lambda c, y: margins.cosface(c, y, 64.0, 0.35),
    "arcface_acos": lambda c, y: margins.arcface(c, y, 64.0, 0.5),
    "combined_arc": lambda c, y: margins.combined_margin(c, y, 64.0, 1.0, 0.5, 0.0),
    "combined_cos": lambda c, y: margins.combined_margin(c, y, 64.0, 1.0, 0.0, 0.4),
    "combined_all": lambda c, y: margins.combined_margin(c, y, 64.0, 1.0, 0.5, 0.2),
    "combined_plain": lambda c, y: margins.combined_margin(c, y, 64.0, 1.0, 0.0, 0.0),
    "combined_arc_filter": lambda c, y: margins.combined_margin(c, y, 64.0, 1.0, 0.5, 0.0, 0.4),
    "combined_cos_filter": lambda c, y: margins.combined_margin(c, y, 64.0, 1.0, 0.0, 0.4, 0.4),
}


def error(a, b) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())


@needs_fixtures
@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_the_published_ones(name):
    arrays = np.load(FIXTURES / "heads.npz")
    labels = jnp.asarray(arrays["labels"], jnp.int32)

    def loss(embeddings, weight):
        cosine = ClassifierHead(50).apply({"params": {"weight": weight}}, embeddings)
        logits = HEADS[name](cosine, labels)
        return losses.classification(logits, labels), logits

    both = jnp.asarray(arrays["embeddings"]), jnp.asarray(arrays["weight"].T)
    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(*both)
    assert error(logits, arrays[f"{name}__logits"]) < 5e-6
    assert error(value, arrays.get(f"{name}__plain_ce", arrays[f"{name}__loss"])) < 2e-6
    assert error(gradients[0], arrays[f"{name}__grad_embeddings"]) < 1e-5
    assert error(gradients[1].T, arrays[f"{name}__grad_weight"]) < 1e-5


@needs_fixtures
def test_distillation_equals_the_published_one():
    arrays = np.load(FIXTURES / "distill.npz")
    labels, teacher = jnp.asarray(arrays["labels"], jnp.int32), jnp.asarray(arrays["teacher"])

    def combined(student, weight):
        cosine = ClassifierHead(50).apply({"params": {"weight": weight}}, student)
        classification = losses.classification(margins.cosface(cosine, labels, 64.0, 0.35), labels)
        return classification + 10000 * losses.distillation(student, teacher)

    student = jnp.asarray(arrays["student"])
    value, gradients = jax.jit(jax.value_and_grad(losses.distillation, argnums=(0, 1)))(student, teacher)
    assert error(value, arrays["kt__loss"]) < 2e-6
    assert error(gradients[0], arrays["kt__grad_student"]) < 1e-5
    assert not gradients[1].any()
    both = student, jnp.asarray(arrays["weight"].T)
    value, gradients = jax.jit(jax.value_and_grad(combined, argnums=(0, 1)))(*both)
    assert error(value, arrays["combined__loss"]) < 2e-6
    assert error(gradients[0], arrays["combined__grad_student"]) < 1e-5
    assert error(gradients[1].T, arrays["combined__grad_weight"]) < 1e-5
