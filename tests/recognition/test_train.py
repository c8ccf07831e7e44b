"""The trainer on a toy: it learns, its loss is what it says, and its teacher stays as it is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sface_jax.core import mesh
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, layout
from sface_jax.recognition import losses, network, optimiser, teacher, train
from sface_jax.recognition.trainer import Trainer
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
        patch.setattr(dataset, "open", lambda path, *key: {"train": toy})
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
    network.save(workdir / "copy", loaded)
    again = network.load(workdir / "copy")
    assert again.preprocessing == loaded.preprocessing and again.module == loaded.module
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again.variables, loaded.variables))


@pytest.fixture(scope="module")
def start(toy):
    """The state of step 0, on the host."""
    return jax.device_get(trainer(toy).init())


def trainer(toy, **changes):
    settings = config("", **changes)
    opened = network.load(settings.teacher) if settings.distillation_weight else None
    return Trainer(settings, toy.num_classes, len(toy), toy.image_size, mesh.make_mesh(), opened)


def one_step(toy, start, **changes):
    """The state after one step over the first 16 pictures, and its scalars."""
    made = trainer(toy, **changes)
    if not made.method:
        start = start.replace(
            params={"backbone": start.params["backbone"]}, velocity={"backbone": start.velocity["backbone"]}
        )
    before = jax.device_get(made.teacher_variables)
    state, told = made.step(start, {"image": toy.pictures[:16], "label": toy.labels[:16] - 5}, 0)
    after = jax.device_get(made.teacher_variables)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, after))
    return jax.device_get(state), jax.device_get(told)


@pytest.fixture(scope="module")
def classified(toy, start):
    """One step by labels alone, with a small clip and no decay."""
    return one_step(toy, start, clip_norm=1e-3, weight_decay=0.0)


def test_the_loss_is_the_weighted_sum_and_the_teacher_stays(trained, toy, start, classified):
    folder = str(trained[0] / "recognition/authentic")
    distilled_state, distilled = one_step(
        toy, start, classification_weight=0.0, distillation_weight=100.0, teacher=folder
    )
    _, both = one_step(toy, start, classification_weight=0.5, distillation_weight=100.0, teacher=folder)
    for term, alone in (("classification_loss", classified[1]), ("distillation_loss", distilled)):
        np.testing.assert_allclose(both[term], alone[term], rtol=1e-5)
    expected = 0.5 * classified[1]["classification_loss"] + 100 * distilled["distillation_loss"]
    np.testing.assert_allclose(both["loss"], expected, rtol=1e-5)
    assert "head" not in distilled_state.params and "classification_loss" not in distilled


def test_a_student_that_is_its_teacher_has_no_distillation_loss(trained, toy):
    opened = network.load(trained[0] / "recognition/authentic")
    x = opened.preprocessing(toy.pictures[:8])
    embeddings = jax.jit(lambda v: opened.module.apply(v, x, train=False))(opened.variables)
    assert losses.distillation(embeddings, 3 * embeddings) < 1e-10


def test_the_clip_is_the_backbones(classified):
    state, told = classified
    np.testing.assert_allclose(told["learning_rate"], 0.1)
    assert told["gradient_norm"] > 0.1
    np.testing.assert_allclose(optimiser.norm(state.velocity["backbone"]), 1e-3, rtol=1e-2)
    assert optimiser.norm(state.velocity["head"]) > 1e-2


def test_the_cosine_schedule_rises_and_falls():
    cosine = [
        float(optimiser.learning_rate(step, base=0.2, schedule="cosine", total_steps=110, warmup_steps=10))
        for step in (0, 4, 9, 10, 60, 110)
    ]
    np.testing.assert_allclose(cosine, [0.02, 0.1, 0.2, 0.2, 0.1, 0.0], atol=1e-6)


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
        ({"accumulate": 3}, "accumulate=3 parts: make it a multiple of 3"),
        ({"accumulate": 0}, "accumulate=0: set it to 1"),
    ],
)
def test_bad_input_is_told_in_one_line(toy, tmp_path, monkeypatch, changes, line):
    (tmp_path / layout.INFO_FILE).touch()
    monkeypatch.setattr(dataset, "open", lambda path, *key: {"train": toy})
    with pytest.raises(UserError, match=line) as told:
        train.run(config(tmp_path, **changes), epath.Path(tmp_path))
    assert "\n" not in str(told.value)


def test_cached_embeddings_teach_as_the_teacher_does(trained, toy, start, tmp_path):
    folder = trained[0] / "recognition/authentic"
    changes = {"distillation_weight": 100.0, "teacher": str(folder), "augmentations": ("flip",)}
    settings, opened = config("", **changes), network.load(folder)
    targets = teacher.cached(opened, toy, mesh.make_mesh(), epath.Path(tmp_path))
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    again = teacher.cached(opened, toy, mesh.make_mesh(), epath.Path(tmp_path))
    assert file.stat().st_mtime_ns == before and (again == targets).all() and targets.shape == (64, 2, 8)
    batch = {"image": toy.pictures[8:24], "label": toy.labels[8:24] - 5, "index": np.arange(8, 24)}
    told = []
    for cache in (None, again):
        made = Trainer(settings, toy.num_classes, len(toy), toy.image_size, mesh.make_mesh(), opened, cache)
        told.append(jax.device_get(made.step(jax.tree.map(jnp.array, start), batch, 0)[1]))
    for name in told[0]:
        np.testing.assert_allclose(told[1][name], told[0][name], rtol=1e-4, err_msg=name)
    other = network.Network(
        opened.module, opened.variables, dataclasses.replace(opened.preprocessing, std=(1.0, 1.0, 1.0))
    )
    assert not (teacher.cached(other, toy, mesh.make_mesh(), epath.Path(tmp_path)) == targets).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_classes_that_are_not_sampled_stay_as_they_are(toy, start):
    made = trainer(toy, class_sample_rate=0.01, batch_size=2)
    batch = {"image": toy.pictures[[0, 4]], "label": np.zeros(2, np.int32)}
    state, _ = made.step(jax.tree.map(jnp.array, start), batch, 0)
    for now, before in ((state.params, start.params), (state.velocity, start.velocity)):
        changed = (np.asarray(now["head"]["weight"]) != before["head"]["weight"]).any(1)
        assert changed[0] and changed.sum() == 2


def test_verification_on_the_way_changes_nothing_but_the_log(trained, toy, monkeypatch):
    workdir, result = trained
    seen = []

    def open_judge(benchmarks, folder, size, batch_size):
        assert (benchmarks, folder, size, batch_size) == (("heldout",), workdir, 16, 16)
        return lambda of: seen.append(of) or {"heldout_accuracy": 0.5 + len(seen) / 100}

    monkeypatch.setattr(dataset, "open", lambda path, *key: {"train": toy})
    watched = config(workdir, name="watched", steps=30, verify_every=12)
    again = train.run(watched, workdir, open_judge=open_judge)
    assert again.pop("heldout_accuracy") == 0.53 and again.pop("network") == "watched"
    assert again | {"speed": None} == {key: result[key] for key in again} | {"speed": None}
    log = [json.loads(line) for line in (workdir / "recognition/watched/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "heldout_accuracy" in record] == [12, 24, 30]
    plain, looked_at = (network.load(workdir / "recognition" / name) for name in ("authentic", "watched"))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), plain.variables, looked_at.variables))
    assert seen[0].preprocessing == plain.preprocessing and seen[0].module == plain.module
