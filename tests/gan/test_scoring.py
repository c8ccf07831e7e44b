"""The discriminator as an attacker uses it: all labels at once, each picture for itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from sface_jax.core import pictures
from sface_jax.core.checkpoint import Checkpoints
from sface_jax.core.errors import UserError
from sface_jax.gan import network, scoring
from sface_jax.gan.trainer import network_facts
from tests.gan import toy

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> epath.Path:
    """A generator's folder with checkpoints of two steps, the second one's weights twice the first's."""
    folder = epath.Path(tmp_path_factory.mktemp("gan"))
    facts = network_facts(toy.config(), 6, 8)
    network.save(folder, facts)
    generator, discriminator = network.build(facts)
    z, c = jnp.zeros((2, generator.z_dim)), jnp.zeros(2, jnp.int32)
    made = jax.jit(generator.init)(jax.random.key(0), z, c)
    judge = jax.jit(discriminator.init)(jax.random.key(1), jnp.zeros((2, 8, 8, 3)), c)["params"]
    checkpoints = Checkpoints(folder / "checkpoints", keep=3)
    for step in (3, 6):
        state = {"generator_ema": made["params"], "buffers": made["buffers"], "step": jnp.int32(step)}
        checkpoints.save(step, state | {"discriminator": jax.tree.map(lambda x, step=step: x * (step / 3), judge)})
    checkpoints.close()
    return folder


def test_logits_are_the_discriminators_own_under_every_label(folder):
    score = scoring.open_discriminator(str(folder))
    logits = score(IMAGES)
    assert logits.shape == (5, 6) and logits.dtype == np.float32
    discriminator, variables = network.load_discriminator(folder)
    companions = score._companions
    assert len(companions) == discriminator.mbstd_group_size - 1
    x = pictures.from_uint8(IMAGES)
    batch = jnp.concatenate([x, *(jnp.tile(one, (5, 1, 1, 1)) for one in companions)])
    for label in (0, 4):
        wanted = jax.jit(discriminator.apply)(variables, batch, jnp.full(len(batch), label))[:5]
        np.testing.assert_allclose(logits[:, label], wanted, rtol=1e-4, atol=1e-5)


def test_a_picture_is_scored_alone(folder):
    score = scoring.open_discriminator(str(folder))
    together = score(IMAGES)
    np.testing.assert_allclose(score(IMAGES[2:3]), together[2:3], rtol=1e-5, atol=1e-6)
    many = np.tile(IMAGES, (30, 1, 1, 1))  # more than a batch
    np.testing.assert_allclose(score(many)[-5:], together, rtol=1e-5, atol=1e-6)
    assert score(np.zeros((1, 24, 24, 3), np.uint8)).shape == (1, 6)  # of another size


def test_a_checkpoint_is_found_by_its_step(folder):
    assert network.load(folder)[2]["step"] == 6 and network.load(folder, "3")[2]["step"] == 3
    ratio = np.asarray(network.load_discriminator(folder, "6")[1]["params"]["b4"]["out"]["weight"]) / np.asarray(
        network.load_discriminator(folder, "3")[1]["params"]["b4"]["out"]["weight"]
    )
    np.testing.assert_allclose(ratio, 2)
    with pytest.raises(UserError, match="only of 3, 6"):
        network.load(folder, "4")
    with pytest.raises(UserError, match="nor the number of a step"):
        network.load(folder, "first")
