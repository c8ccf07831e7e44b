"""The stage leaves a folder that synthesis draws from, and state dicts that are those it began with."""

import jax
import numpy as np
import pytest
from etils import epath

from configs import convert as recipe
from sface_jax.convert import array_files, convert, stylegan2
from sface_jax.core.errors import UserError
from sface_jax.gan import network
from tests.convert import pytorch
from tests.convert.test_stylegan2 import D, G


@pytest.fixture(scope="module")
def originals():
    g, d = pytorch.generator_shapes(**{**G, "size": 8}), pytorch.discriminator_shapes(**{**D, "size": 8})
    return {"G_ema": pytorch.arrays(g), "D": pytorch.arrays(d)}


def run(source, output, **changes):
    config = recipe.get_config()
    config.update({"source": str(source), "output": str(output), **changes})
    return convert.run(config, epath.Path(output).parent)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pkl"])
def test_networks_go_there_and_back(tmp_path, originals, suffix):
    source, folder, back = tmp_path / f"source{suffix}", tmp_path / "gan", tmp_path / "back.npz"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    if suffix == ".pkl":
        networks = {name: pytorch.network(arrays) for name, arrays in originals.items()}
        source.write_bytes(pytorch.dumps(networks))
    else:
        array_files.write(source, originals)
    result = run(source, folder, mbstd_group_size=2)
    assert result == {"networks": ["G_ema", "D"], "image_size": 8, "classes": 3}

    module, variables, facts = network.load(folder)
    expected, expected_variables = stylegan2.generator_from_state_dict(originals["G_ema"])
    assert module == expected
    jax.tree.map(np.testing.assert_array_equal, variables, expected_variables)
    assert network.build(facts)[1] == stylegan2.discriminator_from_state_dict(originals["D"], 2)[0]

    run(folder, back)
    for name, arrays in array_files.read(back).items():
        assert pytorch.same(arrays, originals[name])


def test_a_generator_alone_is_enough(tmp_path, originals):
    array_files.write(tmp_path / "source.npz", {"G": originals["G_ema"]})
    assert run(tmp_path / "source.npz", tmp_path / "gan")["networks"] == ["G"]
    assert run(tmp_path / "gan", tmp_path / "back.npz")["networks"] == ["G_ema"]
    assert pytorch.same(array_files.read(tmp_path / "back.npz")["G_ema"], originals["G_ema"])


def test_a_discriminator_of_another_kind_is_told_and_can_be_left_out(tmp_path, originals):
    other = {name: array for name, array in originals["D"].items() if ".skip." not in name}
    array_files.write(tmp_path / "source.npz", {**originals, "D": other})
    with pytest.raises(UserError, match="missing: b8.skip.weight.*--config.discriminator=False"):
        run(tmp_path / "source.npz", tmp_path / "gan")
    assert run(tmp_path / "source.npz", tmp_path / "gan", discriminator=False)["networks"] == ["G_ema"]


def test_mistakes_are_told_before_anything_is_written(tmp_path, originals):
    whole = tmp_path / "whole.npz"
    array_files.write(whole, originals)
    array_files.write(tmp_path / "d.npz", {"D": originals["D"]})
    np.savez(tmp_path / "bare.npz", **{"mapping.w_avg": np.zeros(1)})
    (tmp_path / "damaged.npz").write_bytes(whole.read_bytes()[:100])
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for source, output, match in (
        ("", tmp_path / "gan", "set --config.source"),
        (tmp_path / "missing.pkl", tmp_path / "gan", "set --config.source"),
        (whole, tmp_path / "folder", "there already"),
        (tmp_path / "notes.txt", tmp_path / "gan", "cannot be converted"),
        (tmp_path / "bare.npz", tmp_path / "gan", "G_ema/mapping"),
        (tmp_path / "damaged.npz", tmp_path / "gan", "cannot be read"),
        (tmp_path / "d.npz", tmp_path / "gan", "no generator"),
        (tmp_path / "folder", tmp_path / "gan", "neither a generator nor"),
        (tmp_path / "gan", tmp_path / "new.npz", "no network .*set --config.source"),
    ):
        with pytest.raises(UserError, match=match):
            run(source, output)
    assert sorted(tmp_path.rglob("*")) == before
