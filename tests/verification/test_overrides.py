"""Another preprocessing in the words of a config."""

import flax.linen as nn
import numpy as np
import pytest

from sface_jax.core.errors import UserError
from sface_jax.recognition.network import Network, Preprocessing
from sface_jax.verification import overrides

OWN = Preprocessing(size=8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), channel_order="bgr", alignment="other")
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


def preprocessing(words, own=OWN):
    return overrides.override(Network(nn.Module(), {}, own), words).preprocessing


def test_what_is_not_told_stays():
    assert preprocessing("") == preprocessing(" bgr ") == OWN
    told = preprocessing("rgb")
    assert told == Preprocessing(8, (0.3, 0.2, 0.1), (0.6, 0.5, 0.4), "rgb", "other")
    assert preprocessing("bgr", told) == OWN
    assert overrides.normalisation(told) == overrides.normalisation(OWN)


@pytest.mark.parametrize("word", overrides.NORMALISATIONS)
def test_a_mean_goes_with_its_colour(word):
    rgb, bgr = preprocessing(f"rgb {word}"), preprocessing(f"{word} bgr")
    assert preprocessing(word) == bgr and (bgr.size, bgr.alignment) == (8, "other")
    np.testing.assert_array_equal(bgr(PICTURES), rgb(PICTURES)[..., ::-1])
    assert overrides.name(overrides.normalisation(bgr)) == overrides.name(overrides.normalisation(rgb)) == word


@pytest.mark.parametrize(
    ("word", "of_0", "of_255"),
    [("arcface", -1, 1), ("unit", 0, 1), ("raw", 0, 255), ("facenet", -127.5 / 128, 127.5 / 128)],
)
def test_ranges(word, of_0, of_255):
    x = preprocessing(word)(np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]))
    np.testing.assert_allclose(x[:, 0, 0, 0], [of_0, of_255], atol=1e-4)


def test_means_in_the_unit_of_the_pictures():
    x = preprocessing("caffe bgr")(np.zeros((1, 8, 8, 3), np.uint8))
    np.testing.assert_allclose(x[0, 0, 0], [-103.939, -116.779, -123.68], rtol=1e-5)


def test_a_nameless_one_is_told_by_its_numbers():
    assert overrides.name(overrides.normalisation(OWN)) == "mean 0.3/0.2/0.1 std 0.6/0.5/0.4"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("rbg", "no word 'rbg': choose from arcface, .* bgr"),
        ("imagenet unit", "one normalisation and one order"),
        ("rgb bgr", "one normalisation and one order"),
    ],
)
def test_mistakes_are_told(words, told):
    with pytest.raises(UserError, match=told):
        preprocessing(words)
