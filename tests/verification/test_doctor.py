"""The doctor finds out what a hand-made network wants, of which that is known."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import doctor as recipe
from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data.pairs import Pairs
from sface_jax.recognition.network import Network, Preprocessing
from sface_jax.verification import diagnosis, doctor, overrides
from sface_jax.verification.diagnosis import Trial, Way
from sface_jax.verification.embed import features

SIDE, SIZE, PATTERNS = 40, 28, 8  # pictures, of which the network wants the middle 0.7, and what it knows
PEOPLE, FOLDS = 60, 4


class Patterns(nn.Module):
    """How much of each of some patterns is in the first channel, for pixels in [-1, 1]."""

    traced = 0

    @nn.compact
    def __call__(self, x, train=False):
        type(self).traced += 1
        kernel = self.variable("batch_stats", "kernel", lambda: None).value
        return jnp.tanh(2 * x[..., 0].reshape(len(x), -1)) @ kernel


@pytest.fixture(scope="module")
def patterns():
    coarse = np.random.default_rng(0).normal(size=(PATTERNS, 7, 7))
    return (coarse + coarse[:, :, ::-1]).repeat(4, 1).repeat(4, 2)  # alike on both sides, so that a mirror does no harm


@pytest.fixture(scope="module")
def network(patterns):
    """It wants BGR, mean and std of 0.5, and the middle; what it says of itself is wrong about the order."""
    kernel = np.linalg.pinv(patterns.reshape(PATTERNS, -1)).astype(np.float32)
    return Network(Patterns(), {"batch_stats": {"kernel": kernel}}, Preprocessing(SIZE))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, patterns):
    """People are mixtures of the patterns in the middle of the blue channel; all else is noise."""
    path, rng = epath.Path(tmp_path_factory.mktemp("doctor")), np.random.default_rng(1)
    margin = (SIDE - SIZE) // 2
    for person in range(PEOPLE):
        face = np.tensordot(rng.normal(size=PATTERNS), patterns, 1)
        for index in (1, 2):
            picture = rng.normal(127.5, 60, (SIDE, SIDE, 3))
            middle = face + rng.normal(0, 3.5, (7, 7)).repeat(4, 0).repeat(4, 1)
            picture[margin:-margin, margin:-margin, 2] = 127.5 + 14 * middle
            content = np.clip(picture, 0, 255).astype(np.uint8)
            pictures.write_png(path / "faces" / f"n{person:02d}" / f"n{person:02d}_{index:04d}.png", content)
    each = PEOPLE // FOLDS
    lines = [f"{FOLDS}\t{each}"]
    for fold in range(FOLDS):
        people = range(fold * each, (fold + 1) * each)
        lines += [f"n{person:02d}\t1\t2" for person in people]
        lines += [f"n{person:02d}\t1\tn{(person + 7) % PEOPLE:02d}\t2" for person in people]
    files.write_text(path / "made.txt", "\n".join(lines) + "\n")
    files.write_text(path / "net", "")
    return path


def run(workdir, opened, /, **changes):
    config = recipe.get_config()
    with config.unlocked():
        config.update({"network": str(workdir / "net"), "benchmark": str(workdir / "made.txt"), "folds": FOLDS})
        config.update({"root": str(workdir / "faces"), "crops": (1.0, 0.85, 0.7, 0.55), "batch_size": 32, **changes})
    return doctor.run(config, workdir, lambda path, key: opened)


def test_order_and_crop_are_found_together(workdir, network):
    Patterns.traced = 0
    told = run(workdir, network)
    assert told["verdict"] == "mismatch" and told["advice"] == "--config.preprocessing=bgr --config.crop=0.7"
    assert told["advised"]["normalisation"] == "arcface" and told["advised"]["flip"] == "sum"
    assert told["declared"]["accuracy"] < 0.7 and told["advised"]["accuracy"] > 0.85
    assert told["sentence"].startswith("The network wants BGR, not RGB, and a tighter cut of the faces (0.7 of the ")
    shares = [f"{100 * told[key]['accuracy']:.1f} %" for key in ("declared", "advised")]
    assert f"{shares[0]} as declared, {shares[1]} with bgr and crop 0.7 on 120 pairs" in told["sentence"]
    assert Patterns.traced <= 2  # one program for all ways

    document = files.read_json(workdir / "doctor" / "net/made.json")
    assert document["sentence"] == told["sentence"] and document["pairs"] == 120 and document["ways"] == 48
    tried = document["tried"]
    assert sum(way["flip"] == "none" for way in tried) == 48
    assert {way["pairs"] for way in tried} == {32, 120} and len(document["sha256"]) == 64
    whole = [way for way in tried if way["pairs"] == 120]
    assert max(way["d_prime"] for way in whole) == document["best"]["d_prime"]
    # the ways between the two, which tell that neither change would do alone
    needed = {(order, crop) for order in ("rgb", "bgr") for crop in (1.0, 0.7)}
    assert {(way["order"], way["crop"]) for way in whole} >= needed
    low, gain, high = document["best_less_declared"]["d_prime"]
    assert 0 < low < gain < high


def test_nothing_is_wrong(workdir, network):
    told = run(workdir, network, preprocessing="bgr", crop=0.7)
    assert told["verdict"] == "fine" and told["advice"] == "" and told["declared"] == told["advised"]
    assert (
        told["sentence"].startswith("Nothing is wrong: ") and "is the best of 48 ways, on 120 pairs" in told["sentence"]
    )


def test_mean_and_std_are_found(workdir, network):
    told = run(workdir, network, preprocessing="raw bgr", crop=0.7)
    assert told["verdict"] == "mismatch" and told["advice"] == '--config.preprocessing="arcface bgr"'
    assert "the mean and std of arcface, not of raw" in told["sentence"] and " with arcface on " in told["sentence"]


def test_what_no_way_can_mend(workdir, network):
    noise = np.random.default_rng(2).integers(0, 256, (PEOPLE, 2, SIDE, SIDE, 3), dtype=np.uint8)
    for person, two in enumerate(noise):
        for index, picture in enumerate(two, start=1):
            pictures.write_png(workdir / "noise" / f"n{person:02d}" / f"n{person:02d}_{index:04d}.png", picture)
    told = run(workdir, network, root=str(workdir / "noise"))
    assert told["verdict"] == "hopeless" and told["sentence"].startswith("None of 48 ways gives more than ")
    assert told["sentence"].endswith("not aligned as the network wants them, or it is no face recogniser")


def test_a_way_is_what_the_override_makes_of_the_network(workdir, network):
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    eye = doctor._Eye(network, {1.0: images}, overrides.NORMALISATIONS, batch_size=4)
    for words, mirror in (("caffe bgr", False), ("imagenet rgb", True)):
        name, order = words.split()
        seen = eye.look(Way(order, name, 1.0, "none"), 5, mirror)
        whole = features(overrides.override(network, words), images, mirror=mirror)
        np.testing.assert_allclose(seen, whole, rtol=1e-4, atol=1e-4)


def test_pairs_are_drawn_evenly():
    same = np.tile(np.repeat([True, False], 30), 10)
    numbers = np.arange(600)
    sample, used = doctor.draw(Pairs(numbers, numbers + 600, same, 10), 101, seed=3)
    assert len(sample) == 100 and sorted(used[sample.first]) == sorted(used[sample.second] - 600)
    np.testing.assert_array_equal(same[used[sample.first]], sample.same)
    for pairs in (2, 20, 100):
        part = sample.part(pairs)
        assert part.same.sum() == pairs / 2 and max(part.first.max(), part.second.max()) == 2 * pairs - 1
    drawn = used[sample.part(100).first]
    for kind in (True, False):
        of_kind = drawn[same[drawn] == kind]
        assert (np.diff(of_kind) > 0).all() and (np.bincount(of_kind // 60, minlength=10) == 5).all()
    again, _ = doctor.draw(Pairs(numbers, numbers + 600, same, 10), 101, seed=4)
    assert (used[sample.first] != _[again.first]).any()


def trial(rng, d_prime, same):
    scores = (rng.standard_normal(len(same)) + d_prime * same).astype(np.float32)
    right = (scores > d_prime / 2) == same
    return Trial(scores, right, diagnosis.decidability(scores, same), float(right.mean()), True)


def judged(made, declared, same):
    return diagnosis.diagnose(made, same, declared, declared, tried=9)


def test_the_simplest_explanation_is_told():
    same = np.arange(400) % 2 == 0
    declared, order = Way("rgb", "unit", 1.0, "sum"), Way("bgr", "unit", 1.0, "sum")
    both = order._replace(crop=0.9)
    good = trial(np.random.default_rng(0), 4, same)
    nearly = dataclasses.replace(good, scores=good.scores + 0.001 * same, d_prime=good.d_prime * 1.001)
    bad = trial(np.random.default_rng(1), 2, same)
    found = judged({declared: bad, both: nearly, order: good}, declared, same)
    assert (found.verdict, found.advised, found.best) == ("mismatch", order, both)
    assert "BGR, not RGB: " in found.sentence and found.sentence.endswith("; set --config.preprocessing=bgr")
    found = judged({order: good, both: nearly}, order, same)
    assert (found.verdict, found.advised) == ("fine", order) and "within the noise of the best" in found.sentence
    assert judged({both: nearly, declared: bad}, declared, same).advised == both


def test_what_accuracy_cannot_tell_is_said():
    same = np.arange(400) % 2 == 0
    declared, other = Way("rgb", "unit", 1.0, "sum"), Way("rgb", "imagenet", 1.3, "none")
    good = trial(np.random.default_rng(0), 6, same)
    near = good.scores - 1.0 * same
    worse = dataclasses.replace(good, scores=near, d_prime=diagnosis.decidability(near, same))
    found = judged({declared: worse, other: good}, declared, same)
    assert found.verdict == "mismatch" and "too few for accuracy to tell" in found.sentence
    assert found.sentence.endswith("--config.preprocessing=imagenet --config.crop=1.3 --config.flip=\"('none',)\"")
    assert "a looser cut of the faces (1.3 of the pictures' side, not 1), and flip none, not sum" in found.sentence


def test_flags_are_all_the_words_that_the_override_needs():
    own, strange = Way("rgb", "arcface", 1.0, "sum"), Way("bgr", "mean 0.1/0.2/0.3 std 1/1/1", 1.0, "sum")
    for declared, order, colours, by_itself, words in (
        (own, "bgr", "arcface", own, "bgr"),
        (own._replace(order="bgr"), "rgb", "arcface", own, "rgb"),
        (own._replace(order="bgr"), "bgr", "unit", own, '"unit bgr"'),
        (own._replace(order="bgr", normalisation="raw"), "rgb", "arcface", own, '"arcface rgb"'),
        (strange, "rgb", strange.normalisation, strange, "rgb"),
        (strange._replace(normalisation="unit"), "bgr", strange.normalisation, strange, '""'),
    ):
        way = declared._replace(order=order, normalisation=colours)
        assert diagnosis.flags(declared, way, by_itself) == f"--config.preprocessing={words}"
        network = Network(Patterns(), {}, Preprocessing(SIZE, channel_order=by_itself.order))
        found = overrides.override(network, words.strip('"')).preprocessing
        assert found.channel_order == order
        if colours in overrides.NORMALISATIONS:
            assert overrides.name(overrides.normalisation(found)) == colours
    assert diagnosis.flags(own, own, own) == ""


def test_numbers_that_are_not_finite(workdir):
    views = np.full((4, 1, 3), np.nan, np.float32)
    part = doctor.Sample(np.arange(4), np.arange(4)[::-1].copy(), np.array([True, False, True, False]), np.arange(4))
    found = doctor._try(views, "none", part, folds=2)
    assert not found.finite and found.d_prime == 0 and found.accuracy == 0.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"benchmark": ""}, "--config.benchmark"),
        ({"network": ""}, "no network is named: set --config.network"),
        ({"preprocessing": "rbg"}, "no word 'rbg'"),
        ({"flip": "both"}, "none, sum, concatenate"),
        ({"crop": 0.0}, "config.crop is 0.0"),
        ({"crops": (1.0, 9.0)}, "config.crops"),
        ({"pairs": 6}, "config.pairs=6 is too few for 4 folds"),
        ({"benchmark": "ijb=templates:here"}, "of templates: name one of pairs"),
    ],
)
def test_mistakes_are_told(workdir, network, changes, told):
    with pytest.raises(UserError, match=told):
        run(workdir, network, **changes)
