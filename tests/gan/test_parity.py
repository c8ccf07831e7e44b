"""Networks, losses and their gradients against reference arrays."""

import functools

import jax
import numpy as np
import pytest

from sface_jax.convert import stylegan2
from sface_jax.core.errors import UserError
from sface_jax.gan import losses
from tests.gan.conftest import close, nhwc


@pytest.fixture(scope="module")
def generator(reference):
    return stylegan2.generator_from_state_dict(reference.network("G"))


@pytest.fixture(scope="module")
def discriminator(reference):
    return stylegan2.discriminator_from_state_dict(reference.network("D"))


@pytest.fixture(scope="module")
def forward(reference):
    return reference.load("forward.npz")


@pytest.mark.parametrize(("key", "options"), [
    ("psi1", {}),
    ("psi0.7", {"truncation_psi": 0.7}),
    ("psi0.7_cutoff4", {"truncation_psi": 0.7, "truncation_cutoff": 4}),
])  # fmt: skip
def test_mapping(generator, forward, key, options):
    module, variables = generator
    ws = module.apply(variables, forward["z"], forward["c"].argmax(1), **options, method="map")
    close(ws, forward[f"ws/{key}"], 2e-6)


@pytest.mark.parametrize("psi", ["psi1", "psi0.7"])
@pytest.mark.parametrize("noise", ["const", "none"])
def test_pictures_and_their_logits(generator, discriminator, forward, psi, noise):
    module, variables = generator
    reference = nhwc(forward[f"img/{psi}/{noise}"])
    draw = jax.jit(functools.partial(module.apply, noise=noise, method="synthesize"))
    close(draw(variables, forward[f"ws/{psi}"]), reference, 1e-5)
    module, variables = discriminator
    logits = jax.jit(module.apply)(variables, reference, forward["c"].argmax(1))
    close(logits, forward[f"D/logits/{psi}/{noise}"][:, 0], 1e-5)


def test_logits_of_a_part_of_the_batch_differ_by_its_statistic(discriminator, forward):
    module, variables = discriminator
    logits = module.apply(variables, nhwc(forward["real"])[:4], forward["real_c"].argmax(1)[:4])
    close(logits, forward["D/logits/real_first4"][:, 0], 2e-5)
    assert np.abs(logits - forward["D/logits/real"][:4, 0]).max() > 1e-5


def test_losses_and_gradient_norms(reference, generator, discriminator):
    told = reference.load("losses.npz")
    z, c = told["inputs/gen_z"], told["inputs/gen_c"].argmax(1)
    real, real_c = nhwc(told["inputs/real_img"]), told["inputs/real_c"].argmax(1)
    (g, g_variables), (d, d_variables) = generator, discriminator

    def g_main(params):
        images = g.apply({**g_variables, "params": params}, z, c)
        return losses.generator_loss(d.apply(d_variables, images, c))

    def d_main(params):
        fakes = d.apply({"params": params}, g.apply(g_variables, z, c), c)
        return losses.discriminator_loss(d.apply({"params": params}, real, real_c), fakes)

    def r1(params):
        return losses.r1_penalty(lambda x: d.apply({"params": params}, x, real_c), real).mean() / 2

    for name, loss, params in (("Gmain", g_main, g_variables), ("Dmain", d_main, d_variables), ("R1", r1, d_variables)):
        differentiate = jax.value_and_grad(loss)
        if name != "Gmain":
            # Fused, G rounds otherwise at a leaky ReLU that is within rounding of zero, and takes its other slope.
            differentiate = jax.jit(differentiate)
        value, gradient = differentiate(params["params"])
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
        close(value, told[f"{name}/loss"], 1e-5)
        close(norm, told[f"{name}/grad_norm_total"], 1e-5)


def test_a_state_dict_that_lacks_an_entry_is_refused(reference):
    arrays = reference.network("G")
    del arrays["synthesis.b16.conv1.weight"]
    with pytest.raises(UserError, match="b16.conv1.weight"):
        stylegan2.generator_from_state_dict(arrays)
