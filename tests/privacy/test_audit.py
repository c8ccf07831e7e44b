"""Stage privacy on a small work directory."""

import json

import numpy as np
import pytest
from etils import epath

from configs import privacy
from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import cards
from sface_jax.privacy import audit, card, sources
from tests.verification import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp("work"))
    tiny.write_dataset(path / "authentic", {"train": 6, "heldout": 3}, each=4)
    tiny.write_dataset(path / "synthetic", {"train": 6}, each=3, first_index=100)  # as if the generator knew everybody
    tiny.write_network(path / "recognition" / "matcher")
    tiny.write_network(path / "recognition" / "second", seed=1)
    return path


def config(workdir, **changes):
    made = privacy.get_config()
    paths = {key: made[key].replace("{workdir}", str(workdir)) for key in ("authentic", "synthetic")}
    with made.unlocked():
        made.update({"batch_size": 16, "planted": 5, **paths, **changes})
    return made


def test_audit_of_datasets(workdir):
    result = audit.run(config(workdir, matchers=("matcher", "second")), workdir)
    text = (workdir / "privacy" / "audit.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["matcher"] == "matcher" and list(found["other_matchers"]) == ["second"]
    assert found["sets"]["heldout"] == {"identities": 3, "pictures": 12, "pictures_in_all": 12}
    assert found["score_sets"]["authentic_synthetic"]["count"] == {"mated": 6 * 4 * 3, "non_mated": 24 * 18 - 72}
    assert found["score_sets"]["authentic_authentic"]["count"]["mated"] == 6 * 6
    assert found["score_sets"]["nearest_authentic"]["count"] == {"synthetic": 18}
    assert found["score_sets"]["nearest_synthetic"]["count"] == {"members": 24, "heldout": 12}
    for relation in found["relations"].values():
        assert 0 <= relation["eer"] <= 1 and {"d_sys_null", "auc_interval", "det"} <= set(relation)
        assert len(relation["det"]["fmr"]) == len(relation["det"]["fnmr"]) <= 200
    rate = found["match_rates"]["authentic_synthetic"]["1e-2"]
    assert rate["ratio_to_chance"] == pytest.approx(rate["rate"] / rate["fmr"])
    assert found["controls"]["planted"]["planted"] == 5
    assert result["level"] == found["verdict"]["level"]
    assert result["eer"] == found["relations"]["authentic_synthetic"]["eer"]


def test_folders_named_alike_are_audited_like_datasets(workdir, tmp_path):
    for name, count, first in (("real", 4, 0), ("made", 3, 100)):
        for identity in range(6):
            for index, image in enumerate(tiny.render(np.full(count, identity), first + np.arange(count))):
                pictures.write_png(tmp_path / name / f"p{identity:03d}" / f"{index}.png", image)
    folders = {"authentic": f"{tmp_path}/real", "synthetic": f"{tmp_path}/made"}
    from_folders = audit.run(config(workdir, **folders), workdir)
    assert from_folders["membership_auc"] is None
    caveats = files.read_json(workdir / "privacy" / "audit.json")["verdict"]["caveats"]
    assert "There are no held-out identities, so membership was not tested." in caveats
    from_datasets = audit.run(config(workdir), workdir)
    assert from_folders["eer"] == pytest.approx(from_datasets["eer"])
    assert from_folders["match_rates"] == from_datasets["match_rates"]


CARD = "# Faces\n\n## Privacy\n\nNo audit of this dataset has been made.\n\n## Licence\n\nTo be set.\n"


def test_the_card_of_what_was_audited_states_the_figures(workdir, caplog):
    folder = workdir / "synthetic"
    files.write_text(folder / "README.md", CARD)
    shards = {path.name: cards.sha256(path) for path in folder.iterdir() if ".array_record-" in path.name}
    files.write_json(folder / "manifest.json", {"complete": True, "shards": shards})
    audit.run(config(workdir, matchers=("matcher", "second")), workdir)
    found, told = files.read_json(workdir / "privacy" / "audit.json"), (folder / "README.md").read_text()
    figures = cards.section(told, "Privacy")
    assert told == CARD.replace("No audit of this dataset has been made.", figures)
    assert found["synthetic_sha256"] == cards.digest(shards) and f"`{found['synthetic_sha256']}`" in figures
    rate, rank1 = found["match_rates"]["authentic_synthetic"]["1e-2"], found["linkage"]["rank1"]
    assert f"**{found['verdict']['level']}**" in figures and found["membership"]["power"] in figures
    assert f"| {100 * rate['rate']:.3g} %, " in figures and f"| {100 * rank1['rate']:.3g} % |" in figures
    assert f"| {found['membership']['identity']['auc']:.3f} |" in figures
    assert "`matcher`, whose figures these are; others found: second: " in figures
    assert "18 of the 18 synthetic pictures" in figures and "planted copies of authentic pictures were found" in figures
    again = {"sets": found["sets"], "synthetic_sha256": None, **found}
    assert card.write(folder, found["synthetic_sha256"], again) and (folder / "README.md").read_text() == told

    files.write_json(folder / "manifest.json", {"complete": True, "shards": dict.fromkeys(shards, "2")})  # drawn anew
    assert not card.write(folder, found["synthetic_sha256"], found) and "gets no figures" in caplog.text
    assert not card.write(workdir / "nowhere", None, found) and (folder / "README.md").read_text() == told


def test_a_section_is_written_whatever_could_not_be_measured(workdir):
    audit.run(config(workdir, planted=0), workdir)
    found = files.read_json(workdir / "privacy" / "audit.json")
    bare = found | {"membership": {}, "match_rates": {"authentic_synthetic": {}}, "controls": {}}
    bare["sets"] = {name: size for name, size in found["sets"].items() if name != "heldout"}
    text = card.section(bare, "0")
    assert "| who trained the generator | not tested |  |  |" in text and "Control" not in text and "None" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matchers": ("authentic",)}, "there is no network authentic"),
        ({"matchers": ("matcher",), "teacher": "matcher"}, "is the teacher"),
        ({"matchers": ()}, "--config.matchers"),
        ({"synthetic": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_mistakes_are_told(workdir, changes, message):
    with pytest.raises(UserError, match=message):
        audit.run(config(workdir, **changes), workdir)


def source(names: list[str], counts: list[int], folder: bool = True) -> sources.Source:
    labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    return sources.Source(sources._Files([], 8), labels, dict(enumerate(names)), folder)


def test_synthetic_identities_are_known_by_name_or_number():
    authentic = source(["ann", "ben", "cia"], [2, 2, 2])
    named = sources.same_identities(source(["cia", "zoe", "ann"], [1, 1, 1]), authentic)
    assert named.labels.tolist() == [2, 4, 0]
    numbered = sources.same_identities(source(["00002", "00001"], [1, 1]), authentic)
    assert numbered.labels.tolist() == [2, 1]
    with pytest.raises(UserError, match="no identity of config.synthetic"):
        sources.same_identities(source(["zoe"], [1]), authentic)


def test_a_cap_takes_evenly_from_all_identities():
    chosen = source(["a", "b", "c"], [50, 3, 20]).chosen(13, seed=0)
    assert np.bincount(source(["a", "b", "c"], [50, 3, 20]).labels[chosen]).tolist() == [5, 3, 5]
    assert len(source(["a"], [7]).chosen(0)) == 7
