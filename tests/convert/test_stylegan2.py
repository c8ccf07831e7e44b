"""State dicts of any configuration become networks of that configuration, and the same state dicts again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.convert import pickles, stylegan2
from sface_jax.core.errors import UserError
from tests.convert import pytorch
from tests.gan.conftest import FOLDER

G = dict(size=16, classes=3, z=5, w=6, base=64, most=8, layers=2, colours=3)
D = dict(size=16, classes=3, base=64, most=8, layers=2, cmap=4, planes=1, colours=3)


@pytest.fixture
def generator():
    return pytorch.arrays(pytorch.generator_shapes(**G))


@pytest.fixture
def discriminator():
    return pytorch.arrays(pytorch.discriminator_shapes(**D))


@pytest.mark.parametrize("prefix", ["G", "D"])
def test_the_reference_network_comes_back_unchanged(prefix):
    if not FOLDER.exists():
        pytest.skip("reference arrays (../shared/fixtures/stylegan2_ada) are not at hand: their names are NOT tested")
    weights = np.load(FOLDER / "weights.npz")
    arrays = {name[2:]: weights[name] for name in weights if name.startswith(f"{prefix}/")}
    back, forth = {
        "G": (stylegan2.generator_to_state_dict, stylegan2.generator_from_state_dict),
        "D": (stylegan2.discriminator_to_state_dict, stylegan2.discriminator_from_state_dict),
    }[prefix]
    returned = back(*forth(arrays))
    assert pytorch.same(returned, arrays)
    assert list(returned) == list(arrays)


sizes = st.sampled_from([8, 16, 64, 512])
few = st.integers(0, 3)
widths = st.integers(1, 9)
bases = st.tuples(st.integers(512, 2000), st.sampled_from([1, 2, 5, 8, 1000]))


@settings(max_examples=12, deadline=None)
@given(sizes, few, widths, widths, bases, st.integers(1, 3), st.sampled_from([1, 3, 4]))
def test_any_generator_comes_back_unchanged(size, classes, z, w, base, layers, colours):
    base, most = base
    arrays = pytorch.arrays(pytorch.generator_shapes(size, classes, z, w, base, min(most, 40), layers, colours))
    module, variables = stylegan2.generator_from_state_dict(arrays)
    found = module.image_size, module.num_classes, module.z_dim, module.w_dim, module.mapping_layers
    assert (*found, module.image_channels) == (size, classes, z, w, layers, colours)
    assert pytorch.same(stylegan2.generator_to_state_dict(module, variables), arrays)


@settings(max_examples=12, deadline=None)
@given(sizes, few, bases, few, widths, st.sampled_from([0, 1]), st.sampled_from([1, 3, 4]))
def test_any_discriminator_comes_back_unchanged(size, classes, base, layers, cmap, planes, colours):
    base, most = base
    layers = layers if classes else 0
    shapes = pytorch.discriminator_shapes(size, classes, base, min(most, 40), layers, cmap, planes, colours)
    arrays = pytorch.arrays(shapes)
    module, variables = stylegan2.discriminator_from_state_dict(arrays, mbstd_group_size=2)
    found = module.image_size, module.num_classes, module.mapping_layers, module.mbstd_channels, module.mbstd_group_size
    assert (*found, module.image_channels) == (size, classes, layers, planes, 2, colours)
    assert pytorch.same(stylegan2.discriminator_to_state_dict(module, variables), arrays)


def test_every_entry_is_accounted_for(generator, discriminator):
    for arrays, build in (
        (generator, stylegan2.generator_from_state_dict),
        (discriminator, stylegan2.discriminator_from_state_dict),
    ):
        needed = {name: array for name, array in arrays.items() if not name.endswith("resample_filter")}
        build(needed)
        for name in needed:
            with pytest.raises(UserError):
                build({other: array for other, array in arrays.items() if other != name})
        with pytest.raises(UserError, match="unknown: extra.weight, extra1, extra2 and 1 more"):
            build(arrays | {name: np.zeros(1) for name in ("extra.weight", "extra1", "extra2", "extra3")})


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        ("synthesis.b8.conv1.bias", np.zeros(3, np.float32), r"b8\.conv1\.bias has the shape \(3,\)"),
        ("synthesis.b8.conv1.bias", np.zeros(8, np.int64), "int64"),
        ("synthesis.b8.conv1.weight", np.zeros((7, 8, 3, 3), np.float32), "channels"),
        ("synthesis.b8.resample_filter", np.eye(4, dtype=np.float32), "another filter"),
        ("mapping.fc0.weight", np.zeros((6, 6), np.float32), "no room for a latent"),
        ("mapping.embed.weight", np.zeros(6, np.float32), "2 axes"),
    ],
)
def test_what_does_not_fit_is_named(generator, name, array, match):
    with pytest.raises(UserError, match=match):
        stylegan2.generator_from_state_dict({**generator, name: array})


def test_a_network_of_another_kind_is_refused():
    for arrays in ({}, {"conv1.weight": np.zeros(3)}, {"b0.conv0.weight": np.zeros(3)}):
        for build in (stylegan2.generator_from_state_dict, stylegan2.discriminator_from_state_dict):
            with pytest.raises(UserError, match="StyleGAN2-ADA"):
                build(arrays)


def test_variables_of_another_network_are_refused(generator):
    module, variables = stylegan2.generator_from_state_dict(generator)
    del variables["params"]["synthesis"]["b8"]["conv1"]["bias"]
    with pytest.raises(UserError, match="missing: params/synthesis/b8/conv1/bias"):
        stylegan2.generator_to_state_dict(module, variables)


def test_what_pytorch_does_not_have_is_told(generator, discriminator):
    module, variables = stylegan2.generator_from_state_dict(generator)
    assert pytorch.same(stylegan2.generator_to_state_dict(module.clone(crop=2), variables), generator)
    module, variables = stylegan2.discriminator_from_state_dict(discriminator)
    assert pytorch.same(stylegan2.discriminator_to_state_dict(module.clone(crop=2), variables), discriminator)
    with pytest.raises(UserError, match="unconditional head"):
        stylegan2.discriminator_to_state_dict(module.clone(unconditional_head=True), variables)


def test_half_precision_is_kept_in_float32(generator):
    half = {name: array.astype(np.float16) for name, array in generator.items()}
    _, variables = stylegan2.generator_from_state_dict(half)
    weight = variables["params"]["mapping"]["fc0"]["weight"]
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, half["mapping.fc0.weight"].T)


def test_attributes_tell_what_shapes_do_not(generator, discriminator):
    def group(attributes, default=4):
        return stylegan2.discriminator_from_network(pickles.StateDict(discriminator, attributes), default)[
            0
        ].mbstd_group_size

    assert group({}) == 4
    assert group({}, 7) == 7
    assert group({"b4.mbstd.group_size": 2}) == 2
    assert group({"b4.mbstd.group_size": None}) > 10**6
    for attributes in ({"synthesis.b4.conv1.activation": "relu"}, {"mapping.fc1.bias_gain": 1.0}):
        with pytest.raises(UserError, match="can be converted"):
            stylegan2.generator_from_network(pickles.StateDict(generator, attributes))
