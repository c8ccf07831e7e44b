"""The trainer on a toy: it learns, its loss is what it says, and its teacher stays as it is."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sface_jax.core import mesh, rng
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, layout
from sface_jax.recognition import augment, network, optimiser, train
from tests.recognition.toy import Toy, config


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """A work directory with a recogniser trained on the toy, and the stage's result."""
    workdir = epath.Path(tmp_path_factory.mktemp("run"))
    (workdir / layout.INFO_FILE).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "open", lambda path: {"train": toy})
        result = train.run(config(workdir, name="authentic", steps=30), workdir)
    return workdir, result


def test_it_learns(trained, toy):
    workdir, result = trained
    log = [json.loads(line) for line in (workdir / "recognition/authentic/metrics.jsonl").read_text().splitlines()]
    assert np.mean([record["loss"] for record in log[-5:]]) < 0.6 * np.mean([record["loss"] for record in log[:3]])
    assert result["accuracy"] > 0.9 and result["steps"] == 30 and result["epochs"] == 30 * 16 / 64
    assert result["classification_loss"] == result["loss"] and "distillation_loss" not in result


def test_what_is_saved_is_what_was_trained(trained, toy):
    workdir, _ = trained
    loaded = network.load(workdir / "recognition/authentic")
    embed = jax.jit(lambda v, x: loaded.module.apply(v, loaded.preprocessing(x), train=False))
    embeddings = embed(loaded.variables, toy.pictures)
    assert embeddings.shape == (64, 8)
    mean = np.stack([embeddings[toy.labels == label].mean(0) for label in toy.classes])
    nearest = toy.classes[((embeddings[:, None] - mean) ** 2).sum(-1).argmin(1)]
    assert (nearest == toy.labels).mean() > 0.9
    attributes = network.architecture("iresnet_narrow", blocks=(1,), widths=(8,), strides=(2,), embedding_size=8)
    network.save(workdir / "copy", attributes, loaded)
    again = network.load(workdir / "copy")
    assert again.preprocessing == loaded.preprocessing and again.module == loaded.module
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again.variables, loaded.variables))


@pytest.fixture(scope="module")
def start(toy):
    """The state of step 0, on the host."""
    return jax.device_get(trainer(toy).init())


def trainer(toy, **changes):
    settings = config("", **changes)
    teacher = network.load(settings.teacher) if settings.distillation_weight else None
    return train.Trainer(settings, toy.num_classes, len(toy), toy.image_size, mesh.make_mesh(), teacher)


def one_step(toy, start, **changes):
    """The state after one step over the first 16 pictures, and its scalars."""
    made = trainer(toy, **changes)
    if not made.head:
        start = start.replace(
            params={"backbone": start.params["backbone"]}, velocity={"backbone": start.velocity["backbone"]}
        )
    before = jax.device_get(made._teacher_variables)
    state, told = made.step(start, {"image": toy.pictures[:16], "label": toy.labels[:16] - 5}, 0)
    after = jax.device_get(made._teacher_variables)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, after))
    return jax.device_get(state), jax.device_get(told)


@pytest.fixture(scope="module")
def classified(toy, start):
    """One step by labels alone, with a small clip and no decay."""
    return one_step(toy, start, clip_norm=1e-3, weight_decay=0.0)


def test_the_loss_is_the_weighted_sum_and_the_teacher_stays(trained, toy, start, classified):
    teacher = str(trained[0] / "recognition/authentic")
    distilled_state, distilled = one_step(
        toy, start, classification_weight=0.0, distillation_weight=100.0, teacher=teacher
    )
    _, both = one_step(toy, start, classification_weight=0.5, distillation_weight=100.0, teacher=teacher)
    for term, alone in (("classification_loss", classified[1]), ("distillation_loss", distilled)):
        np.testing.assert_allclose(both[term], alone[term], rtol=1e-5)
    expected = 0.5 * classified[1]["classification_loss"] + 100 * distilled["distillation_loss"]
    np.testing.assert_allclose(both["loss"], expected, rtol=1e-5)
    assert "head" not in distilled_state.params and "classification_loss" not in distilled


def test_a_student_that_is_its_teacher_has_no_distillation_loss(trained, toy):
    teacher = network.load(trained[0] / "recognition/authentic")
    x = teacher.preprocessing(toy.pictures[:8])
    embeddings = jax.jit(lambda v: teacher.module.apply(v, x, train=False))(teacher.variables)
    assert train.losses.distillation(embeddings, 3 * embeddings) < 1e-10


def test_the_clip_is_the_backbones(classified):
    state, told = classified
    np.testing.assert_allclose(told["learning_rate"], 0.1)
    assert told["gradient_norm"] > 0.1
    np.testing.assert_allclose(optimiser.norm(state.velocity["backbone"]), 1e-3, rtol=1e-2)
    assert optimiser.norm(state.velocity["head"]) > 1e-2


def test_flips_are_a_function_of_seed_and_step(toy):
    pictures = jnp.asarray(toy.pictures[:16], jnp.float32)

    def flipped(seed, step):
        return np.asarray(augment.apply(("flip",), rng.stream(seed, "augment", step), pictures))

    first = flipped(0, 3)
    assert (first == flipped(0, 3)).all() and (first != flipped(0, 4)).any() and (first != flipped(1, 3)).any()
    mirrored = [(a == b[:, ::-1]).all() for a, b in zip(first, pictures, strict=True)]
    kept = [(a == b).all() for a, b in zip(first, pictures, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True)) and 0 < sum(mirrored) < 16


def test_translation_moves_whole_pixels_and_light_keeps_the_range(toy):
    ramp = jnp.tile(jnp.arange(16.0)[None, :, None, None] * 8, (32, 1, 16, 3))
    moved = np.asarray(augment.translate(jax.random.key(1), ramp))
    shifts = (moved[:, 8, 8, 0] - 64) / 8
    assert set(np.unique(shifts)) == {-1.0, 0.0, 1.0}
    lit = augment.light(jax.random.key(1), jnp.asarray(toy.pictures, jnp.float32))
    assert lit.min() >= 0 and lit.max() <= 255 and not np.allclose(lit, toy.pictures)


def test_the_papers_schedule():
    rates = [
        optimiser.learning_rate(
            10 * epoch, base=0.1, schedule="milestones", total_steps=640, milestones=(390, 470, 510)
        )
        for epoch in (0, 38, 39, 46, 47, 50, 51, 63)
    ]
    np.testing.assert_allclose(rates, [0.1, 0.1, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)
    cosine = [
        float(optimiser.learning_rate(step, base=0.2, schedule="cosine", total_steps=110, warmup_steps=10))
        for step in (0, 4, 9, 10, 60, 110)
    ]
    np.testing.assert_allclose(cosine, [0.02, 0.1, 0.2, 0.2, 0.1, 0.0], atol=1e-6)


def test_sgd_is_the_published_one():
    p, v = jnp.array([-0.33010637760162354]), jnp.zeros(1)
    for gradient, rate, expected in (
        (0.2693845331668854, 0.1, -0.3570283353328705),
        (1.0154244899749756, 0.1, -0.4827826917171478),
        (1.2929648160934448, 0.1, -0.7252339720726013),
        (-0.8183076977729797, 0.01, -0.7388678789138794),
    ):
        p, v = optimiser.sgd(p, v, jnp.array([gradient]), rate, 0.9, 5e-4)
        np.testing.assert_allclose(p, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dataset": "nowhere"}, "--config.dataset=DIR, or .*combined.py:quickstart"),
        ({"dataset": "nowhere", "distillation_weight": 1.0}, "--config.teacher=DIR"),
        ({"distillation_weight": 1.0, "teacher": "nowhere"}, "--config.teacher=DIR"),
        ({"classification_weight": 0.0}, "classification_weight"),
        ({"head": "sphereface"}, "cosface"),
        ({"augmentations": ("flop",)}, "flip"),
        ({"schedule": "linear"}, "cosine"),
    ],
)
def test_bad_input_is_told_in_one_line(toy, tmp_path, monkeypatch, changes, line):
    (tmp_path / layout.INFO_FILE).touch()
    monkeypatch.setattr(dataset, "open", lambda path: {"train": toy})
    with pytest.raises(UserError, match=line) as told:
        train.run(config(tmp_path, **changes), epath.Path(tmp_path))
    assert "\n" not in str(told.value)
