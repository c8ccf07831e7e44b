"""The benchmark of the protocols, on little."""

from etils import epath

from configs import benchmark
from sface_jax.core import files
from sface_jax.verification import benchmark as stage


def test_it_times_pairs_and_templates(tmp_path):
    config = benchmark.get_config("verification")
    config.update(
        {"pairs": 100, "dimensions": 8, "rounds": 1, "pictures": 400, "templates": 60, "template_pairs": 3000}
    )
    workdir = epath.Path(tmp_path)
    told = stage.run(config, workdir)
    assert told == files.read_json(tmp_path / "benchmark" / "verification.json")
    assert {"protocol_ms", "loops_ms", "templates: pooling_s", "templates: scores and rates_s"} <= told.keys()
    config.pictures = 0
    assert "templates: pooling_s" not in stage.run(config, workdir)
