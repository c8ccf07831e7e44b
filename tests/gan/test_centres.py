"""The centre of a class is the mean of the mapping network over latents."""

import jax
import numpy as np

from sface_jax.gan.centres import class_centres
from tests.synthesis import small

GENERATOR, VARIABLES, _ = small.load("")


def test_a_centre_is_the_mean_of_the_class_over_latents():
    z = jax.random.normal(jax.random.key(3), (4000, GENERATOR.z_dim))
    mapped = jax.jit(lambda variables, label: GENERATOR.apply(variables, z, label, method="map")[:, 0])
    centres = class_centres(GENERATOR, VARIABLES, np.arange(5), samples=4000)
    for label in range(5):
        w = np.asarray(mapped(VARIABLES, np.full(4000, label)))
        error = w.std(0) * np.sqrt(2 / 4000)
        assert (np.abs(centres[label] - w.mean(0)) < 5 * error).all()


def test_a_centre_does_not_depend_on_the_other_classes_asked_for():
    every = class_centres(GENERATOR, VARIABLES, np.arange(5), samples=64)
    np.testing.assert_array_equal(
        class_centres(GENERATOR, VARIABLES, np.array([4, 1]), samples=64), np.asarray(every)[[4, 1]]
    )
    assert not np.allclose(every, class_centres(GENERATOR, VARIABLES, np.arange(5), samples=64, seed=1))
