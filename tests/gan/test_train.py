"""The stage: its phases, its schedules against worked examples, what it watches, and mistakes in its config."""

import copy
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.core import mesh as meshes
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.data import dataset
from sface_jax.gan import adam, network, quality, train, trainer
from tests.gan.toy import config
from tests.recognition.toy import Toy


@pytest.fixture(scope="module")
def schedule(reference):
    return json.loads((reference.folder / "schedule.json").read_text())


def test_averaging_follows_the_worked_examples(schedule):
    for told in schedule["ema_examples"]:
        keys = {"batch_size": told["batch_size"], "ema_kimg": told["ema_kimg"], "ema_rampup": told["ema_rampup"] or 0.0}
        beta = trainer.ema_beta(jnp.asarray(told["images_before"]), ConfigDict(keys))
        np.testing.assert_allclose(beta, told["beta"], atol=1e-6)


def test_lazy_regularisers_correct_their_optimisers(schedule):
    """The first update is the learning rate; the second moment decays by beta2."""
    told = schedule["auto"][0]
    for lazy in (told["G_lazy"], told["D_lazy"]):
        for shares in (False, True):
            made = adam.lazy(told["lrate"], 0.0, 0.99, lazy["interval"], shares)
            state = made.init({"x": jnp.ones(3), "y": jnp.ones((2, 1))})
            gradient = {"x": jnp.array([2.0, jnp.nan, jnp.inf]), "y": jnp.zeros((2, 1))}
            change, state = made.update(gradient, state)
            np.testing.assert_allclose(change["x"], [-lazy["lr"], 0, -lazy["lr"]], rtol=1e-5)
            moments = state[1][0]
            assert moments.count == 1 and moments.nu["y"].shape == (2, 1)
            np.testing.assert_allclose(moments.nu["x"][:2], [(1 - lazy["betas"][1]) * 4, 0], rtol=1e-4)


def test_the_config_is_the_published_one_at_128_pixels(schedule):
    from configs import gan

    told, ours = schedule["auto"][0], gan.get_config()
    assert (ours.batch_size, ours.mbstd_group_size, ours.channel_base) == (32, told["mbstd"], told["channel_base"])
    assert (ours.r1_gamma, ours.ema_kimg, ours.ema_rampup) == (told["gamma"], told["ema_kimg"], told["ema_rampup"])
    defaults, loop = schedule["loss_defaults"], schedule["loop_defaults"]
    assert (ours.style_mixing, ours.path_length_weight) == (defaults["style_mixing_prob"], defaults["pl_weight"])
    assert (ours.path_length_decay, ours.path_length_shrink) == (defaults["pl_decay"], defaults["pl_batch_shrink"])
    assert (ours.path_length_interval, ours.r1_interval) == (loop["G_reg_interval"], loop["D_reg_interval"])
    assert (ours.ada_interval, ours.ada_kimg, ours.ada_target) == (loop["ada_interval"], loop["ada_kimg"], 0.6)


@pytest.fixture(scope="module")
def made():
    """A trainer of the toy, with every phase and a separating recogniser, and two steps of it."""
    seeing = Embedder("colours", {"bias": np.zeros(3, np.float32)}, colours)
    changes = {"separation_weight": 1.0, "transition_end_kimg": 1.0, "ada_target": 2.0, "augment_p": 0.5, "crop": 4}
    made = trainer.Trainer(config(**changes), np.array([9, 3, 1, 3]), 8, meshes.make_mesh(), seeing)
    toy = Toy()
    batch = {"image": toy.pictures[:8, 4:12, 4:12], "label": toy.labels[:8] - 5}
    states, told = [made.init()], {}
    begin = jax.device_get(states[0])
    state = states[0]
    for number in range(2):
        state, scalars = made.step(state, batch, number)
        told |= scalars
    return made, begin, jax.device_get(state), jax.device_get(told)


def colours(variables, pictures):
    e = pictures.mean((1, 2)) + variables["bias"] + 1e-3
    return e / jnp.linalg.norm(e, axis=1, keepdims=True)


def open_embedder(path):
    return Embedder(path, {"bias": np.zeros(3, np.float32)}, colours)


def test_a_step_goes_through_every_phase(made):
    trainer, begin, end, told = made
    assert [phase.name for phase in trainer.phases] == ["g_main", "g_path", "d_main", "d_r1"]
    assert {"g_loss", "g_separation", "path_length", "d_loss", "d_real_sign", "ada_p", "r1_penalty"} <= set(told)
    assert end.path_length_mean > 0 and end.step == 2
    for tree in ("generator", "discriminator", "generator_ema"):
        moved = jax.tree.map(lambda a, b: np.any(a != b), getattr(begin, tree), getattr(end, tree))
        still = [jax.tree_util.keystr(path) for path, x in jax.tree.leaves_with_path(moved) if not x]
        assert all("mapping" in path and "bias" not in path for path in still)  # before the label counts


def test_pictures_are_cropped_and_the_probability_moves(made):
    trainer, _, end, _ = made
    assert trainer.generator.image_size == 16 and trainer.generator.picture_shape == (8, 8, 3)
    # The target of 2 is never met: after two steps of 8 pictures p went down by 16 / 50, and the signs begin anew.
    np.testing.assert_allclose(end.augment_p, 0.5 - 16 / 50, rtol=1e-6)
    assert np.all(end.signs == 0)


def test_the_probability_goes_up_where_d_is_sure(made):
    trainer, begin, _, _ = made
    trainer = copy.copy(trainer)
    trainer.config = config(ada_target=0.6)
    sure = jax.device_put(begin.replace(step=np.int32(1), signs=np.array([30.0, 32.0], np.float32)))
    np.testing.assert_allclose(trainer._end_step(sure).augment_p, 0.5 + 16 / 50, rtol=1e-6)
    early = jax.device_put(begin.replace(step=np.int32(0), signs=np.array([30.0, 32.0], np.float32)))
    assert trainer._end_step(early).augment_p == 0.5 and trainer._end_step(early).signs[1] == 32


def test_style_mixing_joins_two_latents_of_one_class(made):
    trainer, begin, _, _ = made
    state = jax.device_put(begin)
    ws, _ = jax.jit(lambda key: trainer._styles(state.generator, state, key, 64))(jax.random.key(0))
    changes = np.any(np.asarray(ws[:, 1:] != ws[:, :-1]), axis=2)
    assert set(changes.sum(1)) == {0, 1}
    assert 0.7 < changes.any(1).mean() <= 1.0
    assert len(set(changes[changes.any(1)].argmax(1))) > 3


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("watched"))
    patch = pytest.MonkeyPatch()
    patch.setattr(dataset, "open", lambda path: {"train": Toy()})
    changes = {"kimg": 0.048, "watch_network": "colours", "watch_every": 2, "watch_classes": 3, "watch_per_class": 5}
    result = train.run(config(**changes), folder, open_embedder)
    patch.undo()
    return folder, result, [json.loads(line) for line in (folder / "gan/metrics.jsonl").read_text().splitlines()]


def test_what_is_watched_is_logged(watched):
    _, _, log = watched
    seen = {line["step"]: line for line in log if "watch/frechet" in line}
    assert list(seen) == [2, 4, 6]
    assert {f"watch/{name}" for name in (*quality.MEASURES, "collapsed")} <= set(seen[6])
    authentic = {line["watch/intra_authentic"] for line in seen.values()}
    assert len(authentic) == 1  # the same pictures each time


def test_the_best_is_kept_and_is_what_is_loaded(watched):
    folder, result, log = watched
    values = {line["step"]: line["watch/frechet"] for line in log if "watch/frechet" in line}
    best = min(values, key=values.get)
    assert result["best"] == {"step": best, "metric": "frechet", "value": values[best]}
    assert network.load(folder / "gan")[2]["step"] == best
    assert network.load(folder / "gan", "latest")[2]["step"] == 6
    with pytest.raises(UserError, match="neither"):
        network.load(folder / "gan", "newest")


def test_a_collapse_is_told_once(watched, monkeypatch, caplog):
    folder, _, _ = watched
    monkeypatch.setattr(dataset, "open", lambda path: {"train": Toy()})
    monkeypatch.setattr(quality, "collapsed", lambda ratio: True)
    changes = {"kimg": 0.064, "watch_network": "colours", "watch_every": 1, "watch_classes": 3, "watch_per_class": 5}
    with caplog.at_level(logging.WARNING):
        train.run(config(**changes), folder, open_embedder)
    assert caplog.text.count("repeats itself within classes") == 1


@pytest.mark.parametrize(("changes", "match"), [
    ({"crop": 1}, "set --config.crop=0"),
    ({"augment": "bgcc"}, "did you mean"),
    ({"watch_network": "colours", "watch_metric": "intra_synthetic"}, "choose one of frechet"),
    ({"watch_network": "colours", "watch_per_class": 1}, "2 or more"),
    ({"dtype": "float16"}, "bfloat16"),
    ({"channel_base": 8}, "no channel"),
    ({"accumulate": 3}, "accumulate=3 parts: make it a multiple of 3"),
    ({"accumulate": 4}, "mbstd_group_size=4 does not divide the 2 pictures of a part"),
])  # fmt: skip
def test_mistakes_are_told_in_a_line(changes, match, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "open", lambda path: {"train": Toy()})
    with pytest.raises(UserError, match=match):
        train.run(config(**changes), epath.Path(tmp_path), open_embedder)


def test_another_generator_in_the_folder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "open", lambda path: {"train": Toy()})
    converted = {"generator": {}, "discriminator": {}, "converted_from": "network.pkl"}
    files.write_json(tmp_path / "gan/network.json", converted)
    with pytest.raises(UserError, match="holds another generator"):
        train.run(config(), epath.Path(tmp_path))
    assert files.read_json(tmp_path / "gan/network.json") == converted


def test_pixels_choose_no_best(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "open", lambda path: {"train": Toy()})
    changes = {"kimg": 0.008, "watch_network": "pixels", "watch_every": 1, "watch_classes": 3, "watch_per_class": 5}
    assert train.run(config(**changes), epath.Path(tmp_path), open_embedder)["best"] == {}
    assert "watch/spread_ratio" in (tmp_path / "gan/metrics.jsonl").read_text()


def test_a_best_that_nothing_tells_of_gives_way(watched):
    """Killed between the checkpoint and best.json, a run resumes before it and finds an earlier best."""
    folder, _, _ = watched
    checkpoints = Checkpoints(folder / "again/best", keep=1)
    checkpoints.save(9, {"x": np.zeros(1)})
    checkpoints.drop_from(8)
    checkpoints.save(8, {"x": np.ones(1)})
    checkpoints.close()
    assert Checkpoints(folder / "again/best", read_only=True).latest_step() == 8
