"""The fast lowerings against their definitions."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core import winograd
from sface_jax.gan import ops
from tests.gan import definitions
from tests.gan.conftest import nhwc

FIR = np.array(ops.FIR)


@pytest.fixture(scope="module")
def cases(reference):
    arrays = reference.load("upfirdn.npz")

    def read(case):
        """The definition's function, its arrays and options, and the result."""
        told = {key: value for key, value in case.items() if key not in ("key", "op", "out_shape")}
        x = arrays[told["x"] if "/" in told["x"] else f"x/{told['x']}"]
        options = told | {"x": x}
        for name, folder in (("filter", "filter/"), ("w", "w/"), ("noise", "noise/"), ("styles", ""), ("b", "")):
            if name in options:
                options[name] = None if options[name] is None else arrays[folder + options[name]]
        if "filter" in options:
            options["taps"] = options.pop("filter")
        return case["op"], options, arrays[f"out/{case['key']}"]

    return [(case, *read(case)) for case in json.loads((reference.folder / "upfirdn_cases.json").read_text())]


def test_the_definitions_are_those_of_the_reference(cases):
    for case, op, options, expected in cases:
        found = getattr(definitions, op)(**options)
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=case["key"])


def test_operations_are_those_of_the_reference_where_the_networks_use_them(cases):
    """[1,3,3,1], padding that keeps the size, rotated kernels for up-sampling and straight ones else."""
    done = set()
    for case, op, options, expected in cases:
        kernel = options["w"].transpose(2, 3, 1, 0) if "w" in options else None
        x, up, down = nhwc(options["x"]), case.get("up", 1), case.get("down", 1)
        usual = case.get("filter") == "1331_2d" and case.get("gain", 1) == 1 and not case.get("flip_filter")
        if kernel is not None:
            keeps = case["padding"] == len(kernel) // 2 and case.get("groups", 1) == 1
            usual = usual and keeps and case["flip_weight"] == (up == 1) and up * down < 4
            usual = usual and not (up == 2 and len(kernel) == 1)
        if op == "bias_act" and case["act"] == "lrelu" and case["clamp"] is None:
            bias = options["b"]
            found = ops.leaky_relu(x + bias) if case["gain"] is None else ops.leaky_relu(x + bias, case["gain"])
        elif op == "upsample2d" and usual:
            found = ops.upsample(x)
        elif op == "downsample2d" and usual and x.shape[1] % 2 == 0:
            found = ops.downsample(x)
        elif op == "conv2d_resample" and usual and (down == 1 or x.shape[1] % 2 == 0):
            resampling = ops.convolve_down if down == 2 else ops.convolve_up if up == 2 else ops.convolve
            found = resampling(x, kernel)
        elif op == "modulated_conv2d" and usual and down == 1:
            found = ops.modulated_convolve(x, kernel, options["styles"], up=up == 2, demodulate=case["demodulate"])
            found = found if options["noise"] is None else found + nhwc(options["noise"])
        else:
            continue
        done.add(case["key"])
        np.testing.assert_allclose(found, nhwc(expected), atol=2e-5, err_msg=case["key"])
    assert len(done) == 21


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.sampled_from([2, 4, 6]), st.sampled_from([2, 8]))
def test_resampling_is_what_it_says(seed, h, w):
    x = np.random.default_rng(seed).normal(size=(2, h, w, 3)).astype(np.float32)
    nchw = x.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ops.upsample(x), nhwc(definitions.upsample2d(nchw, FIR)), atol=1e-5)
    np.testing.assert_allclose(ops.downsample(x), nhwc(definitions.downsample2d(nchw, FIR)), atol=1e-5)


def test_convolutions_that_resample_are_what_they_say():
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 6, 8, 4)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 4, 5)).astype(np.float32)
    nchw, oihw = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
    slow = definitions.conv2d_resample(nchw, oihw, FIR, up=2, padding=1, flip_weight=False)
    np.testing.assert_allclose(ops.convolve_up(x, kernel), nhwc(slow), atol=1e-4)
    slow = definitions.conv2d_resample(nchw, oihw, FIR, down=2, padding=1)
    np.testing.assert_allclose(ops.convolve_down(x, kernel), nhwc(slow), atol=1e-4)


LOWERINGS = {
    "winograd": (winograd.correlate, functools.partial(ops._correlate, padding=1), (2, 6, 8, 4)),
    "transposed": (ops._transposed_as_product, ops._transposed, (2, 3, 4, 4)),
    "strided": (ops._strided_as_product, functools.partial(ops._correlate, stride=2), (2, 7, 9, 4)),
}


@pytest.mark.parametrize("name", LOWERINGS)
def test_the_form_for_cpus_has_the_values_and_derivatives_of_the_plain_one(name):
    fast, plain, shape = LOWERINGS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    kernel = random.normal(size=(3, 3, 4, 5)).astype(np.float32) / 6

    def penalty(convolve, x, kernel):
        gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(convolve(x, kernel))))(x)
        return jnp.sum(gradient**2)

    @functools.partial(jax.jit, static_argnums=0)
    def all_of_it(convolve, x, kernel):
        return convolve(x, kernel), jax.grad(penalty, argnums=(1, 2))(convolve, x, kernel)

    ours, theirs = all_of_it(fast, x, kernel), all_of_it(plain, x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)


def test_large_convolutions_take_the_short_cut_and_stay_the_same():
    x, kernel = (
        jax.random.normal(jax.random.key(0), (1, 16, 16, 256)),
        jax.random.normal(jax.random.key(1), (3, 3, 256, 256)),
    )
    close = ops._correlate(x, kernel, padding=1)
    np.testing.assert_allclose(jax.jit(ops.convolve)(x, kernel), close, atol=1e-4 * np.abs(close).max())


def test_modulation_is_a_kernel_of_each_sample():
    random = np.random.default_rng(1)
    x, styles = random.normal(size=(3, 5, 5, 4)).astype(np.float32), random.normal(size=(3, 4)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 4, 2)).astype(np.float32)
    slow = definitions.modulated_conv2d(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), styles, padding=1)
    np.testing.assert_allclose(ops.modulated_convolve(x, kernel, styles), nhwc(slow), atol=1e-5)


def test_samples_of_a_group_share_its_deviation():
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
    planes = ops.minibatch_stddev(x, group_size=4)[..., 6:]
    assert planes.shape == (8, 4, 4, 1)
    np.testing.assert_array_equal(planes[::2], jnp.broadcast_to(planes[:1, :1, :1], (4, 4, 4, 1)))
    assert planes[0, 0, 0, 0] != planes[1, 0, 0, 0]
    expected = jnp.sqrt(jnp.var(x[::2], axis=0) + 1e-8).mean()
    np.testing.assert_allclose(planes[0, 0, 0, 0], expected, rtol=1e-5)


def test_bfloat16_bodies_stay_near_float32():
    from sface_jax.gan.generator import Generator

    options = {"image_size": 8, "num_classes": 3, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}
    z, c = jax.random.normal(jax.random.key(1), (2, 8)), jnp.arange(2)
    variables = jax.jit(Generator(**options).init)(jax.random.key(0, impl="rbg"), z, c)
    exact = jax.jit(Generator(**options).apply)(variables, z, c)
    rough = jax.jit(Generator(**options, dtype=jnp.bfloat16).apply)(variables, z, c)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()
