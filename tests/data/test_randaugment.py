import pickle

import numpy as np
import pytest
from PIL import Image

from sface_jax.data import randaugment

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
NAMES = [operation.__name__ for operation in randaugment.OPERATIONS]


def test_it_is_a_function_of_the_generator():
    augment = pickle.loads(pickle.dumps(randaugment.randaugment(layers=4, magnitude=16)))
    changed = [augment(PICTURE, np.random.default_rng(seed)) for seed in (0, 0, 1, 2)]
    assert (changed[0] == changed[1]).all()
    assert (changed[0] != changed[2]).any() and (changed[2] != changed[3]).any()
    assert changed[0].shape == PICTURE.shape and changed[0].dtype == np.uint8


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_without_strength_nothing_happens_and_with_strength_something(number):
    operation, picture = randaugment.OPERATIONS[number], Image.fromarray(PICTURE // 2)
    for strength, sign in ((0.0, 1), (0.0, -1), (0.8, 1), (0.8, -1)):
        changed = np.asarray(operation(picture, strength, sign))
        same = (changed == PICTURE // 2).all()
        if NAMES[number] == "_identity":
            assert same
        elif NAMES[number] in ("_autocontrast", "_equalize") or strength:
            assert not same and changed.shape == PICTURE.shape
        elif NAMES[number] != "_solarize":
            assert same


def test_directions_and_sizes_at_the_usual_magnitude():
    ramp = Image.fromarray(np.tile(np.arange(112, dtype=np.uint8)[:, None, None], (1, 112, 3)))
    moved = np.asarray(randaugment._translate_y(ramp, 16 / 30, 1))
    assert moved[0, 0, 0] == int(150 / 331 * 112 * 16 / 30) == 27 and (moved[-27:] == 0).all()
    assert (np.asarray(randaugment._posterize(ramp, 16 / 30, 1))[:, 0, 0] == np.arange(112) // 4 * 4).all()
    bright = Image.fromarray(np.full((4, 4, 3), 120, np.uint8))
    assert np.asarray(randaugment._solarize(bright, 16 / 30, 1))[0, 0, 0] == 255 - 120
    assert np.asarray(randaugment._brightness(bright, 16 / 30, -1))[0, 0, 0] == int(120 * (1 - 0.48))
