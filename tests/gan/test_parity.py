"""Networks, losses and their gradients against reference arrays."""

import functools
import re

import jax
import numpy as np
import pytest

from sface_jax.convert import stylegan2
from sface_jax.core.errors import UserError
from sface_jax.gan import losses, ops
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


def test_every_layer_of_the_generator(generator, forward):
    """Running pictures, contributions and activations, each resolution."""
    module, variables = generator
    for key in ("psi1/const", "psi1/none", "psi0.7/const"):
        psi, noise = key.split("/")
        _, state = module.apply(
            variables,
            forward[f"ws/{psi}"],
            noise=noise,
            method="synthesize",
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        blocks = state["intermediates"]["synthesis"]
        for size in (4, 8, 16, 32):
            block = blocks[f"b{size}"]
            activations, picture = block["__call__"][0]
            running = f"img/{key}" if size == 32 else f"skip_img/{key}/b{size}"
            close(picture, nhwc(forward[running]), 1e-5)
            if key == "psi1/const":
                close(block["torgb"]["__call__"][0], nhwc(forward[f"torgb/{key}/b{size}"]), 1e-5)
                close(activations[:1], nhwc(forward[f"G_x/{key}/b{size}"]), 1e-5)


def test_every_layer_of_the_discriminator(discriminator, forward):
    module, variables = discriminator
    _, state = module.apply(
        variables,
        nhwc(forward["real"]),
        forward["real_c"].argmax(1),
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    seen = state["intermediates"]
    for size in (8, 16, 32):
        close(seen[f"b{size}"]["__call__"][0][:1], nhwc(forward[f"D_x/real/b{size}"]), 1e-5)
    close(seen["b8"]["__call__"][0], nhwc(forward["D/mbstd_in/real"]), 1e-5)
    planes = ops.minibatch_stddev(seen["b8"]["__call__"][0], 4, 1)[..., -1:]
    close(planes, nhwc(forward["D/mbstd_stat/real"]), 1e-5)
    close(seen["b4"]["__call__"][0], forward["D/out_before_cmap/real"], 1e-5)
    close(seen["mapping"]["__call__"][0], forward["D/cmap/real_c"], 1e-5)


def test_groups_and_channels_of_the_deviation(forward):
    x = nhwc(forward["mbstd/x"])
    for key in forward:
        if found := re.fullmatch(r"mbstd/stat_group(\d+|all)_chan(\d)", key):
            group = len(x) if found[1] == "all" else int(found[1])
            planes = ops.minibatch_stddev(x, group, int(found[2]))[..., x.shape[-1] :]
            close(planes, nhwc(forward[key]), 1e-5)


def test_logits_of_a_part_of_the_batch_differ_by_its_statistic(discriminator, forward):
    module, variables = discriminator
    judge = jax.jit(module.apply)
    for key, images, c in (
        ("real", nhwc(forward["real"]), forward["real_c"].argmax(1)),
        ("psi1/const", nhwc(forward["img/psi1/const"]), forward["c"].argmax(1)),
    ):
        part = judge(variables, images[:4], c[:4])
        close(part, forward[f"D/logits/{key}_first4"][:, 0], 2e-5)
        close(judge(variables, images, c), forward[f"D/logits/{key}"][:, 0], 2e-5)
        assert np.abs(part - forward[f"D/logits/{key}"][:4, 0]).max() > 1e-5


def test_losses_and_gradients(reference, generator, discriminator):
    told = reference.load("losses.npz")
    z, c = told["inputs/gen_z"], told["inputs/gen_c"].argmax(1)
    real, real_c = nhwc(told["inputs/real_img"]), told["inputs/real_c"].argmax(1)
    (g, g_variables), (d, d_variables) = generator, discriminator

    def g_main(params):
        ws = g.apply({**g_variables, "params": params}, z, c, method="map")
        images = g.apply({**g_variables, "params": params}, ws, method="synthesize")
        logits = d.apply(d_variables, images, c)
        w_avg = g_variables["buffers"]["w_avg"]
        seen = {"gen_logits": logits[:, None], "w_avg_after": 0.995 * w_avg + 0.005 * ws[:, 0].mean(0)}
        return losses.generator_loss(logits), seen

    def d_main(params):
        fakes = d.apply({"params": params}, g.apply(g_variables, z, c), c)
        reals = d.apply({"params": params}, real, real_c)
        return losses.discriminator_loss(reals, fakes), {"gen_logits": fakes[:, None], "real_logits": reals[:, None]}

    def r1(params):
        penalty, logits = losses.r1_penalty(lambda x: d.apply({"params": params}, x, real_c), real)
        return told["const/r1_gamma"] / 2 * penalty.mean(), {"penalty": penalty, "real_logits": logits[:, None]}

    def path(params):
        variables, half = {**g_variables, "params": params}, len(told["inputs/pl_noise"])
        ws = g.apply(variables, z[:half], c[:half], method="map")
        directions = nhwc(told["inputs/pl_noise"]) * real.shape[1]  # there divided by sqrt(height * width)
        lengths = losses.path_lengths(lambda ws: g.apply(variables, ws, method="synthesize"), ws, directions)
        start, decay = told["const/pl_mean_before"], float(told["const/pl_decay"])
        penalty, mean = losses.path_length_penalty(lengths, start, decay)
        seen = {"pl_lengths": lengths, "pl_mean_after": mean, "pl_penalty": penalty}
        return told["const/pl_weight"] * penalty.mean(), seen

    for name, loss, variables in (
        ("Gmain", g_main, g_variables),
        ("PL", path, g_variables),
        ("Dmain", d_main, d_variables),
        ("R1", r1, d_variables),
    ):
        differentiate = jax.value_and_grad(loss, has_aux=True)
        if name != "Gmain":
            # Fused, G rounds otherwise at a leaky ReLU that is within rounding of zero, and takes its other slope.
            differentiate = jax.jit(differentiate)
        (value, seen), gradient = differentiate(variables["params"])
        close(value, told[f"{name}/loss"], 1e-5)
        for key, found in seen.items():
            close(found, told[f"{name}/{key}"], 2e-5)
        if variables is g_variables:
            named = stylegan2.generator_to_state_dict(g, {"params": gradient, "buffers": g_variables["buffers"]})
        else:
            named = stylegan2.discriminator_to_state_dict(d, {"params": gradient})
        total = told[f"{name}/grad_norm_total"]
        norms = {key: np.linalg.norm(array) for key, array in named.items() if f"{name}/grad_norm/{key}" in told}
        assert len(norms) == sum(key.startswith(f"{name}/grad_norm/") for key in told)
        close(np.linalg.norm(list(norms.values())), total, 1e-5)
        for key, norm in norms.items():
            expected = told[f"{name}/grad_norm/{key}"]
            # What is next to nothing is compared on the scale of the whole.
            assert abs(norm - expected) <= max(1e-3 * expected, 1e-6 * total), (name, key)
            head = told[f"{name}/grad_head/{key}"]
            np.testing.assert_allclose(named[key].ravel()[: len(head)], head, rtol=5e-3, atol=1e-5 * total)


def test_a_state_dict_that_lacks_an_entry_is_refused(reference):
    arrays = reference.network("G")
    del arrays["synthesis.b16.conv1.weight"]
    with pytest.raises(UserError, match="b16.conv1.weight"):
        stylegan2.generator_from_state_dict(arrays)
