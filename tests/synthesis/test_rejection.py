"""Conditions, what they are measured on, and keys that contradict each other."""

import jax.numpy as jnp
import numpy as np
import pytest

from sface_jax.core import pictures
from sface_jax.core.embedder import Embedder
from sface_jax.core.errors import UserError
from sface_jax.data import dataset, records
from sface_jax.data.example import Example
from sface_jax.synthesis import rejection
from sface_jax.synthesis.banks import Bank
from sface_jax.synthesis.rejection import Conditions, Judge, Rejection
from sface_jax.synthesis.sampling import FOR_CENTRES
from tests.synthesis import small

# A "recogniser" whose feature is the colour, and drawn pictures whose colour is given.
COLOUR = Embedder("colour", {}, lambda variables, images: (images.mean((1, 2)) + 1.0) / 2)


def test_a_neutral_value_switches_a_condition_off():
    own, other, nearest = np.array([-0.5, 0.5]), np.array([1.1, 0.9]), np.array([1.1, 0.2])
    values = [value.astype(np.float32) for value in (own, other, nearest)]
    assert not Conditions().active
    np.testing.assert_allclose(Conditions().violation(*values), [0, 0])
    np.testing.assert_allclose(Conditions(min_class=0.4).violation(*values), [0.9, 0], atol=1e-6)
    np.testing.assert_allclose(Conditions(max_other=0.8).violation(*values), [0.3, 0.1], atol=1e-6)
    np.testing.assert_allclose(Conditions(max_authentic=0.1).violation(*values), [1.0, 0.1], atol=1e-6)
    np.testing.assert_allclose(Conditions(0.4, 0.8, 0.1).violation(*values), [2.2, 0.2], atol=1e-6)


def test_a_bank_gives_centres_and_nearest_by_class():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(40, 5)).astype(np.float32), np.arange(40)[::-1] % 4
    bank = Bank(features, labels)
    query, wanted = random.normal(size=(6, 5)).astype(np.float32), np.array([3, 0, 0, 2, 1, 3])
    for label, centre in enumerate(bank.centres()):
        mean = features[labels == label].mean(0)
        np.testing.assert_allclose(centre, mean / np.linalg.norm(mean), rtol=1e-5)
    expected = [(features[labels == label] @ f).max() for f, label in zip(query, wanted, strict=True)]
    np.testing.assert_allclose(bank.nearest(query, wanted), expected, rtol=1e-6)


@pytest.fixture
def authentic(tmp_path):
    """Three identities, labels 4 to 6: red, green, and two pictures of shades of blue."""
    colours = {4: [(200, 0, 0)], 5: [(0, 200, 0)], 6: [(0, 0, 200), (0, 100, 200)]}
    examples = [
        Example(pictures.encode_png(np.full((6, 6, 3), colour, np.uint8)), label, f"{label}/{k}")
        for label, shades in colours.items()
        for k, colour in enumerate(shades)
    ]
    records.write_shard(tmp_path, "train", 0, 1, examples)
    records.finish(tmp_path, image_size=6, class_names=list("abcdefg"), splits={"train": 1})
    return dataset.open(tmp_path)["train"]


def drawn(colours):
    """Pictures of one colour each, in [-1, 1], a little beyond the range as a generator's may be."""
    return jnp.asarray(np.broadcast_to(np.array(colours)[:, None, None] * 2.1 - 1.05, (len(colours), 4, 4, 3)))


def test_a_judge_measures_saved_pictures_against_centres_and_authentic_pictures(authentic):
    conditions = Conditions(min_class=0.9, max_other=0.4, max_authentic=0.999)
    judge = Judge(Rejection(conditions, 1, COLOUR, "authentic", 1, authentic), 3, lambda samples: None, 4)
    labels = np.array([0, 2, 2, 1])
    look = judge.look(drawn([(1, 0.2, 0.2), (0, 0, 1), (1, 0, 1), (0, 0, 1)]), labels)
    blue = np.array([0, 1, 2 + np.sqrt(5)])  # (0, 0, 1) + (0, 1, 2) / sqrt(5), up to its length
    blue /= np.linalg.norm(blue)
    features = np.array([[1, 0.2 * 1.05 - 0.025, 0.2 * 1.05 - 0.025], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    own = [features[0, 0], blue[2], blue[2] / np.sqrt(2), 0]
    other = [features[0] @ blue, 0, np.sqrt(0.5), blue[2]]
    nearest = np.array([features[0, 0], 1, np.sqrt(0.5), 0])
    np.testing.assert_allclose(look.own, own, atol=0.01)
    np.testing.assert_allclose(look.other, other, atol=0.01)
    expected = conditions.violation(*(np.array(value, np.float32) for value in (own, other, nearest)))
    np.testing.assert_allclose(judge.violations(look, labels), expected, atol=0.02)
    assert expected[0] == 0 and (expected[1:] > 0).all()


def test_synthetic_centres_are_those_of_pictures_that_are_not_in_the_dataset():
    seen = []

    def draw(samples):
        seen.append(samples)
        return drawn(np.eye(3)[samples.labels])

    judge = Judge(Rejection(Conditions(min_class=0.5), 1, COLOUR, "synthetic", 2, None), 3, draw, 4)
    assert all((samples.attempts == FOR_CENTRES).all() for samples in seen)
    look = judge.look(drawn(np.eye(3)[[0, 1, 2, 2]]), np.array([0, 1, 2, 0]))
    np.testing.assert_allclose(look.own, [1, 1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(judge.violations(look, np.array([0, 1, 2, 0])), [0, 0, 0, 0.5], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"recognizer": ""}, "rejection needs a recogniser"),
        ({"min_class_similarity": 0.0, "max_other_similarity": 1.0}, "rejects nothing"),
        ({"min_class_similarity": 1.5}, "is a cosine"),
        ({"attempts": 0}, "config.attempts=0"),
        ({"centres": "synthetc"}, "one of synthetic, authentic"),
        ({"centres": "authentic"}, "holds no dataset"),
        ({"max_authentic_similarity": 0.9}, "holds no dataset"),
    ],
)
def test_keys_that_contradict_each_other_are_told(tmp_path, changes, line):
    config = small.rejecting(tmp_path, authentic=str(tmp_path), **changes)
    with pytest.raises(UserError, match=line):
        rejection.from_config(config, 5, small.open_embedder)


def test_a_recogniser_that_does_not_open_and_a_foreign_dataset_are_told(authentic, tmp_path):
    def missing(path):
        raise FileNotFoundError(path)

    for opener, line in ((missing, "does not open"), (None, "nothing here opens one")):
        with pytest.raises(UserError, match=line):
            rejection.from_config(small.rejecting(tmp_path), 5, opener)
    with pytest.raises(UserError, match="3 identities"):
        config = small.rejecting(tmp_path, centres="authentic", authentic=str(tmp_path))
        rejection.from_config(config, 5, small.open_embedder)
    assert rejection.from_config(small.config(tmp_path), 5, None) is None
