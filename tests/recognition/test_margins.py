"""Margins and losses: the properties they are named for, and the published implementations' figures."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sface_jax.core.errors import UserError
from sface_jax.recognition import losses, margins, methods

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "recognition"
needs_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason=f"no reference arrays in {FIXTURES}")

N, C, SCALE = 3, 4, 64.0
COSINES = hnp.arrays(np.float32, (N, C), elements=st.floats(-1, 1, width=32) | st.sampled_from([-1.0, 0.0, 1.0]))
LABELS = hnp.arrays(np.int32, N, elements=st.integers(0, C - 1))
NORMS = hnp.arrays(np.float32, N, elements=st.floats(0, 200, width=32))
quick = settings(max_examples=25, deadline=None)

# Margins of one size for every row: (cosine, labels, margin) -> logits.
CONSTANT = {
    "cosface": lambda c, y, m: margins.cosface(c, y, SCALE, m),
    "arcface": lambda c, y, m: margins.arcface(c, y, SCALE, m),
    "combined": lambda c, y, m: margins.combined_margin(c, y, SCALE, 1.0 + m / 4, m / 2, m / 4),
    "combined_arc_published": lambda c, y, m: margins.combined_margin(c, y, SCALE, 1.0, m, 0.0, published=True),
    "combined_cos_published": lambda c, y, m: margins.combined_margin(c, y, SCALE, 1.0, 0.0, m, published=True),
    "elastic_cosface": lambda c, y, m: margins.elastic_cosface(c, y, SCALE, jnp.full(N, m)),
    "elastic_arcface": lambda c, y, m: margins.elastic_arcface(c, y, SCALE, jnp.full(N, m)),
    "magface": lambda c, y, m: margins.magface(c, y, jnp.full(N, 50.0), SCALE, 10.0, 110.0, m, m),
}
SPECS = (
    "softmax",
    "cosface",
    "arcface",
    "combined_margin(m1=1.2, m2=0.3, m3=0.1)",
    "combined_margin(published=True, filter_threshold=0.3)",
    "elastic_cosface",
    "elastic_cosface(plus=True)",
    "elastic_arcface",
    "elastic_arcface(plus=True, published=True)",
    "adaface",
    "magface",
    "magface(published=True)",
    "curricularface",
    "curricularface(published=True)",
)


def run(method, cosine, labels, norms, state=None):
    """Logits and penalty of a method on all classes."""
    own = jnp.take_along_axis(cosine, labels[:, None], 1)[:, 0]
    rows, state, penalty = method.rows(jax.random.key(0), state or method.init, own, norms)
    return method.logits(cosine, labels, rows), penalty, rows


@pytest.mark.parametrize("name", CONSTANT)
@quick
@given(cosine=COSINES, labels=LABELS)
def test_without_a_margin_it_is_the_softmax(name, cosine, labels):
    found = CONSTANT[name](cosine, labels, 0.0)
    np.testing.assert_allclose(found, margins.softmax(cosine, labels, SCALE), atol=2e-4)


@pytest.mark.parametrize("name", CONSTANT)
@quick
@given(cosine=COSINES, labels=LABELS, margin=st.sampled_from([0.1, 0.35, 0.5]))
def test_only_the_own_class_changes_and_it_rises_with_its_cosine(name, cosine, labels, margin):
    cosine = np.clip(cosine, -0.84, 1)  # 1.125 theta + 0.25 < pi: where an angular margin rises with the cosine
    logits = np.asarray(CONSTANT[name](cosine, labels, margin))
    own = labels[:, None] == np.arange(C)
    np.testing.assert_allclose(logits[~own], SCALE * cosine[~own], atol=2e-4)
    assert (logits[own] < SCALE * cosine[own]).all()
    order = np.argsort(cosine[own], kind="stable")
    assert (np.diff(logits[own][order]) >= -2e-4).all()


@functools.cache
def examined(spec):
    """Compiled: (cosine, labels, norms) -> loss, its gradients to cosines and norms, logits, and those of slices."""
    method = methods.from_spec(spec)

    def loss(cosine, norms, labels):
        logits, penalty, rows = run(method, cosine, labels, norms)
        parts = [method.logits(cosine[:, i : i + 2], labels - i, rows) for i in range(0, C, 2)]
        assert method.logits(cosine.astype(jnp.bfloat16), labels, rows).dtype == jnp.float32
        return losses.classification(logits, labels) + penalty, (logits, jnp.concatenate(parts, 1))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize("spec", SPECS)
@quick
@given(cosine=COSINES, labels=LABELS, norms=NORMS)
def test_float32_with_finite_gradients_and_the_same_on_slices(spec, cosine, labels, norms):
    (value, (logits, parts)), gradients = examined(spec)(cosine, norms, labels)
    assert np.isfinite(value) and all(np.isfinite(gradient).all() for gradient in gradients)
    assert spec.startswith("magface") or not gradients[1].any()
    np.testing.assert_allclose(parts, logits, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_at_the_poles(spec):
    for sign in (1, -1):
        cosine = sign * np.array([[1, -1, 1, 0], [-1, 1, 1, 1], [1, 1, -1, -1]], np.float32)
        (value, _), gradients = examined(spec)(cosine, np.array([5, 10, 110], np.float32), np.arange(3, dtype=np.int32))
        assert np.isfinite(value) and all(np.isfinite(gradient).all() for gradient in gradients)


def test_gradients_where_the_angles_derivative_is_infinite():
    cosine, labels = jnp.array([[1.0, -1.0], [-1.0, 1.0]]), jnp.array([0, 0])
    gradient = jax.jit(jax.grad(lambda c: margins.arcface(c, labels, SCALE, 0.5).sum()))
    for _ in range(2):
        np.testing.assert_allclose(gradient(cosine)[:, 0], SCALE * np.cos(0.5), rtol=1e-6)
    embeddings = jnp.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    assert np.isfinite(jax.jit(jax.grad(lambda e: losses.normalise(e).sum()))(embeddings)).all()


@quick
@given(
    own=hnp.arrays(np.float32, 7, elements=st.floats(-1, 1, width=32, allow_subnormal=False), unique=True),
    seed=st.integers(0, 99),
)
def test_plus_gives_the_largest_margin_to_the_row_farthest_from_its_class(own, seed):
    drawn = np.random.default_rng(seed).normal(0.5, 0.05, 7).astype(np.float32)
    dealt = np.asarray(margins.elastic_plus(drawn, own))
    np.testing.assert_array_equal(dealt[np.argsort(own)], np.sort(drawn)[::-1])


def test_combined_margin_is_the_papers_and_has_its_gradient():
    cosine, labels = np.linspace(-0.95, 0.95, 9)[:, None], np.zeros(9, np.int32)
    theta = np.arccos(cosine)
    logits = margins.combined_margin(cosine, labels, SCALE, 0.9, 0.4, 0.15)
    np.testing.assert_allclose(logits, SCALE * (np.cos(0.9 * theta + 0.4) - 0.15), atol=2e-5)
    gradient = jax.grad(lambda c: margins.combined_margin(c, labels, SCALE, 0.9, 0.4, 0.15).sum())(jnp.asarray(cosine))
    np.testing.assert_allclose(gradient, SCALE * 0.9 * np.sin(0.9 * theta + 0.4) / np.sin(theta), rtol=1e-4)


def test_magface_is_the_papers():
    rng = np.random.default_rng(0)
    cosine, labels, norms = rng.uniform(-1, 1, (6, 5)), rng.integers(0, 5, 6), np.array([3, 10, 40, 70, 110, 300.0])
    a = np.clip(norms, 10, 110)
    m = 0.45 + (0.8 - 0.45) * (a - 10) / (110 - 10)
    expected, i = SCALE * cosine, np.arange(6)
    expected[i, labels] = SCALE * np.cos(np.arccos(cosine[i, labels]) + m)
    np.testing.assert_allclose(margins.magface(cosine, labels, norms), expected, atol=2e-5)
    np.testing.assert_allclose(margins.magface_penalty(norms), (1 / a + a / 110**2).mean(), rtol=1e-6)
    own = cosine[i, labels]
    published = np.asarray(margins.magface(cosine, labels, norms, published=True))[i, labels]
    np.testing.assert_allclose(published, np.where(own > 0, expected[i, labels], SCALE * own), atol=2e-5)
    # Both the margin and the penalty act on the norm, inside the limits.
    gradient = jax.grad(lambda x: margins.magface(cosine, labels, x).sum())(jnp.asarray(norms, jnp.float32))
    slope = np.where((norms >= 10) & (norms <= 110), 0.0035, 0)
    inside = slope * -SCALE * np.sin(np.arccos(own) + m)
    np.testing.assert_allclose(gradient[2:4], inside[2:4], rtol=1e-4)
    assert gradient[0] == gradient[5] == 0
    assert jax.grad(margins.magface_penalty)(50.0 * jnp.ones(1))[0] < 0


def test_curricularface_is_the_papers():
    rng = np.random.default_rng(1)
    cosine, labels, i = rng.uniform(-1, 1, (40, 5)), rng.integers(0, 5, 40), np.arange(40)
    own = cosine[i, labels]
    t = 0.99 * 0.2 + 0.01 * own.mean()
    np.testing.assert_allclose(margins.curricular_t(0.2, own), t, rtol=1e-6)
    positive = np.cos(np.arccos(own) + 0.5)
    hard = cosine > positive[:, None]
    expected = np.where(hard, cosine * (t + cosine), cosine)
    expected[i, labels] = positive
    slope = np.where(hard, t + 2 * cosine, 1)
    slope[i, labels] = np.sin(np.arccos(own) + 0.5) / np.sin(np.arccos(own))
    np.testing.assert_allclose(margins.curricularface(cosine, labels, t, own), SCALE * expected, atol=2e-5)
    gradient = jax.grad(lambda c: margins.curricularface(c, labels, t, own).sum())(jnp.asarray(cosine, jnp.float32))
    np.testing.assert_allclose(gradient, SCALE * slope, rtol=1e-3, atol=1e-3)
    published = np.asarray(margins.curricularface(cosine, labels, t, own, published=True))[i, labels]
    past = np.arccos(own) + 0.5 > math.pi
    assert past.any()
    np.testing.assert_allclose(published, SCALE * np.where(past, own - 0.5 * np.sin(0.5), positive), atol=2e-5)


def test_adaface_keeps_statistics_and_curricularface_its_t():
    norms, own = jnp.array([10.0, 20.0, 60.0]), jnp.array([0.1, 0.2, 0.6])
    for spec, expected in (
        ("adaface(t_alpha=0.5)", {"mean": 25.0, "std": 50 + np.std([10, 20, 60], ddof=1) / 2}),
        ("curricularface", {"t": 0.003}),
        ("arcface", {}),
    ):
        method = methods.from_spec(spec)
        _, state, _ = method.rows(jax.random.key(0), method.init, own, norms)
        assert state.keys() == method.init.keys() == expected.keys()
        np.testing.assert_allclose([state[key] for key in expected], list(expected.values()), rtol=1e-5)
    assert np.isfinite(margins.adaface_statistics(norms[:1], 20.0, 100.0)[1])


def test_elastic_margins_are_drawn_for_each_row():
    method, own = methods.from_spec("elastic_arcface(mean=0.4, std=0.1)"), jnp.linspace(-1, 1, 4000)
    drawn = method.rows(jax.random.key(1), {}, own, own)[0]["margins"]
    assert drawn.shape == (4000,) and abs(drawn.mean() - 0.4) < 0.01 and abs(drawn.std() - 0.1) < 0.01
    dealt = methods.from_spec("elastic_arcface(mean=0.4, std=0.1, plus=True)").rows(jax.random.key(1), {}, own, own)[0]
    np.testing.assert_array_equal(dealt["margins"], jnp.sort(drawn)[::-1])


@pytest.mark.parametrize("spec", ["sphereface", "cosface(m=0.3)", "cosface(0.3)"])
def test_a_wrong_head_is_told_in_one_line(spec):
    with pytest.raises(UserError) as told:
        methods.from_spec(spec)
    assert "\n" not in str(told.value)


def combined(*m, **options):
    return lambda c, y, a: margins.combined_margin(c, y, 64.0, *m, published=True, **options)


def ada(t_alpha, mean=20.0, std=100.0):
    def logits(cosine, labels, arrays):
        norms = arrays["norms"]
        return margins.adaface(cosine, labels, norms, *margins.adaface_statistics(norms, mean, std, t_alpha))

    return logits


def plus(c, y, drawn):
    return margins.elastic_plus(drawn, jnp.take_along_axis(c, y[:, None], 1)[:, 0], published=True)


HEADS = {
    "softmax": lambda c, y, a: margins.softmax(c, y, 64.0),
    "cosface": lambda c, y, a: margins.cosface(c, y, 64.0, 0.35),
    "arcface_acos": lambda c, y, a: margins.arcface(c, y, 64.0, 0.5),
    "combined_arc": combined(1.0, 0.5, 0.0),
    "combined_cos": combined(1.0, 0.0, 0.4),
    "combined_all": combined(1.0, 0.5, 0.2),
    "combined_plain": combined(1.0, 0.0, 0.0),
    "combined_arc_filter": combined(1.0, 0.5, 0.0, filter_threshold=0.4),
    "combined_cos_filter": combined(1.0, 0.0, 0.4, filter_threshold=0.4),
    "elastic_arc": lambda c, y, a: margins.elastic_arcface(c, y, 64.0, a["arc"]),
    "elastic_cos": lambda c, y, a: margins.elastic_cosface(c, y, 64.0, a["cos"]),
    "elastic_arc_plus": lambda c, y, a: margins.elastic_arcface(c, y, 64.0, plus(c, y, a["arc"])),
    "elastic_cos_plus": lambda c, y, a: margins.elastic_cosface(c, y, 64.0, plus(c, y, a["cos"])),
    "elastic_cos_sface_default": lambda c, y, a: margins.elastic_cosface(c, y, 64.0, jnp.sort(a["cos"])),
    "adaface_t1": ada(1.0),
    "adaface_t001": ada(0.01),
    "adaface_frozen": ada(0.0, 40.0, 8.0),
}


def error(a, b) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())


def cosines(embeddings, weight):
    return jnp.matmul(losses.normalise(embeddings), losses.normalise(weight).T, precision=jax.lax.Precision.HIGHEST)


@pytest.fixture(scope="module")
def heads():
    """The published arrays; and of each head loss, logits and gradients, compiled in one program."""
    arrays = dict(np.load(FIXTURES / "heads.npz"))
    labels = jnp.asarray(arrays["labels"], jnp.int32)
    drawn = {kind: jnp.asarray(arrays[f"elastic_{kind}_margins"]) for kind in ("arc", "cos")}

    def loss(embeddings, weight, head):
        extra = drawn | {"norms": jnp.linalg.norm(embeddings, axis=1)}
        logits = head(cosines(embeddings, weight), labels, extra)
        return losses.classification(logits, labels), logits

    look = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    both = jnp.asarray(arrays["embeddings"]), jnp.asarray(arrays["weight"].T)
    return arrays, jax.jit(lambda e, w: {name: look(e, w, head) for name, head in HEADS.items()})(*both)


@needs_fixtures
@pytest.mark.parametrize("name", HEADS)
def test_heads_equal_the_published_ones(heads, name):
    arrays, found = heads
    (value, logits), gradients = found[name]
    assert error(logits, arrays[f"{name}__logits"]) < 5e-6
    assert error(value, arrays.get(f"{name}__plain_ce", arrays[f"{name}__loss"])) < 2e-6
    assert error(gradients[0], arrays[f"{name}__grad_embeddings"]) < 1e-5
    assert error(gradients[1].T, arrays[f"{name}__grad_weight"]) < 1e-5
    per_row = np.logaddexp.reduce(logits, axis=1) - np.asarray(logits)[np.arange(16), arrays["labels"]]
    assert error(per_row, arrays[f"{name}__ce_per_sample"]) < 5e-6
    if name.startswith("combined"):
        # The published mean is of target probabilities clamped from below at 1e-30; only its value differs.
        assert error(np.minimum(per_row, -math.log(1e-30)).mean(), arrays[f"{name}__loss"]) < 2e-6


@needs_fixtures
@pytest.mark.parametrize(("name", "t_alpha"), [("adaface_t1", 1.0), ("adaface_t001", 0.01), ("adaface_frozen", 0.0)])
def test_adafaces_statistics_equal_the_published_ones(name, t_alpha):
    arrays = np.load(FIXTURES / "heads.npz")
    before = [float(arrays[f"{name}__batch_{what}_before"]) for what in ("mean", "std")]
    after = [float(arrays[f"{name}__batch_{what}_after"]) for what in ("mean", "std")]
    np.testing.assert_allclose(
        margins.adaface_statistics(arrays[f"{name}__feature_norms"].reshape(-1), *before, t_alpha), after, rtol=1e-6
    )


@needs_fixtures
def test_distillation_equals_the_published_one():
    arrays = np.load(FIXTURES / "distill.npz")
    labels, teacher = jnp.asarray(arrays["labels"], jnp.int32), jnp.asarray(arrays["teacher"])

    def combined(student, weight):
        classification = losses.classification(margins.cosface(cosines(student, weight), labels, 64.0, 0.35), labels)
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
