"""Stage planted on a small work directory."""

import pytest
from etils import epath

from configs import planted as configs
from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.privacy import planted
from tests.verification import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp("work"))
    tiny.write_dataset(path / "authentic", {"train": 16, "heldout": 8}, each=4)
    tiny.write_dataset(path / "fresh", {"train": 120}, each=1, first_index=50)
    tiny.write_network(path / "recognition" / "matcher")
    return path


def config(workdir, **changes):
    made = configs.get_config()
    named = {
        "authentic": (f"{workdir}/authentic:train", f"{workdir}/authentic:heldout"),
        "synthetic": (f"{workdir}/fresh",),
        "output": f"{workdir}/planted",
    }
    made.update({"batch_size": 32, "seeds": 2, "edited": 40, "planted": 30, **named, **changes})
    return made


def test_leaks_are_counted_by_kind_share_and_rate(workdir, tmp_path):
    # the first people drawn in the fresh set are those of the authentic one: they are left out by name
    files.write_text(tmp_path / "exclude.txt", "".join(f"p{i:03d}\n" for i in range(24)))
    planted.run(config(workdir, exclude=str(tmp_path / "exclude.txt")), workdir)
    study = files.read_json(workdir / "planted" / "planted.json")
    assert study["authentic"] == {"people": 24, "pictures": 96} and study["synthetic"]["pictures"] == 96
    assert study["none"]["noticed"] == 0 and set(study["none"]["tested"].values()) <= {2}
    assert list(study["kinds"]) == ["exact", "edited", "other"]
    exact = study["kinds"]["exact"]
    assert exact["planted"] == 30 and exact["rank1"] == exact["copies"] == 1
    assert all(share["pictures"] == 1 and share["with_a_copy"] == 2 for share in exact["shares"].values())
    text = (workdir / "planted" / "planted.md").read_text()
    assert "| exact | 1 % | 1 |" in text and "not tried" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"synthetic": ()}, "config.synthetic is empty"), ({"heldout": 1.5}, "between 0 and 1")],
)
def test_mistakes_are_told(workdir, changes, message):
    with pytest.raises(UserError, match=message):
        planted.run(config(workdir, **changes), workdir)
