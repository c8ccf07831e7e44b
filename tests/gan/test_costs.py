"""The operations counted by hand, against those of the programs; and networks of every size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import gan
from sface_jax.core import mesh as meshes
from sface_jax.gan import programs, trainer
from sface_jax.gan.discriminator import Discriminator
from sface_jax.gan.generator import Generator


def test_programs_do_what_must_be_done_and_little_more():
    """The paper's networks at 128 pixels: filters, modulation and augmentation are next to nothing."""
    made = trainer.Trainer(gan.get_config(), np.ones(10572, np.int64), 128, meshes.make_mesh())
    counted = programs.counted(made)
    ratios = {
        name: lower().cost_analysis()["flops"] / made.config.batch_size / counted[name]
        for name, lower in programs.lowered(made).items()
    }
    assert set(ratios) == {"generator", "discriminator", "g_main", "g_path", "d_main", "d_r1"}
    assert all(0.95 < ratio < 1.15 for ratio in ratios.values()), ratios


@pytest.mark.parametrize(("size", "crop"), [(16, 0), (64, 0), (128, 8), (256, 0), (512, 0)])
def test_networks_of_every_size(size, crop):
    shared = {"image_size": size, "num_classes": 7, "crop": crop, "dtype": jnp.bfloat16}
    g, d = Generator(**shared), Discriminator(**shared)
    z, c = jnp.zeros((4, 512)), jnp.zeros(4, jnp.int32)
    variables = jax.eval_shape(g.init, jax.random.key(0), z, c)
    images = jax.eval_shape(g.apply, variables, z, c)
    assert images.shape == (4, size - 2 * crop, size - 2 * crop, 3) and images.dtype == jnp.float32
    parameters = jax.eval_shape(d.init, jax.random.key(0), images, c)
    logits = jax.eval_shape(d.apply, parameters, images, c)
    assert (logits.shape, logits.dtype) == ((4,), jnp.float32)
