"""Every stage of configs/compile.py on the devices at hand, with networks of a few thousand parameters."""

import json

import pytest
from etils import epath

from configs import compile as configs
from sface_jax.gan import compile as gan
from sface_jax.privacy import compile as matching
from sface_jax.recognition import compile as recognition
from sface_jax.recognition import compile_embedding as embedding
from sface_jax.synthesis import compile as synthesis
from tests.gan import toy as toy_gan
from tests.recognition import toy

SMALL_GAN = {"image_size": 8, "classes": 5, "batch_per_device": 4}
SMALL = {"image_size": 16, "classes": 6, "batch_per_device": 8, "embedding_size": 8, "network": "iresnet_narrow"}
FEW = {"queries_per_device": 1024, "tile": 1024, "dimensions": 8, "n": 3000, "m": 2000, "bins": 100}


@pytest.mark.parametrize(
    ("variant", "stage", "changes", "programs"),
    [
        ("", gan, {**toy_gan.config(), **SMALL_GAN, "programs": ("generator", "finish")}, {"generator", "finish"}),
        ("synthesis", synthesis, SMALL_GAN, {"draw"}),
        (
            "recognition",
            recognition,
            {**toy.config(""), **SMALL, "name": "compile_recognition", "programs": ("classify", "distillation")},
            {"classify", "distillation"},
        ),
        ("embedding", embedding, {k: v for k, v in SMALL.items() if k != "classes"}, {"embed"}),
        ("matching", matching, FEW, {"compare"}),
    ],
)
def test_a_stage_tells_what_its_programs_cost(variant, stage, changes, programs, tmp_path):
    config = configs.get_config(variant)
    known = {key: value for key, value in changes.items() if key in config}
    config.update({**known, "topology": ""})
    if variant == "synthesis":
        config.update({key: value for key, value in toy_gan.config().items() if key in config and key != "batch_size"})
    told = stage.run(config, epath.Path(tmp_path))
    (path,) = (tmp_path / "compile").iterdir()
    assert path.stem == (variant or "gan")
    assert json.loads(path.read_text()) == json.loads(json.dumps(told))
    assert set(told["programs"]) == programs
    for row in told["programs"].values():
        assert row["fits"]
        assert row["flops"] > 0
        assert row["traffic"] > 0
        assert row["wire"] == row["unknown_loops"] == 0


def test_chains_name_stages_and_files_that_are_there():
    for variant in ("paper", "scaling"):
        config = configs.get_config(variant)
        names = [name.removeprefix("compile_") for name in config.stages]
        table = config[config.stages[-1]]
        wanted = table.families.values() if variant == "scaling" else [own.values() for own in table.recipes.values()]
        assert {name for own in wanted for name in own} <= set(names)
        assert all(config[name].again == "changed" for name in config.stages[:-1])
        for name in config.stages[:-1]:
            own = config[name]
            if own.stage == "compile" and "ema_kimg" in own:  # a batch other than 32, by the rules beside the keys
                chips = 16 if own.topology.endswith("4x4") else 256
                if variant == "paper":
                    assert own.r1_gamma == pytest.approx(0.0002 * own.image_size**2 / (2 * chips))
                    assert own.ema_kimg == pytest.approx(10 * 2 * chips / 32)
