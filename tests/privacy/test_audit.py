"""Stage privacy on a small work directory."""

import json

import numpy as np
import pytest
from etils import epath

from configs import privacy
from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import cards, dataset
from sface_jax.privacy import audit, card
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
    paths = {key: made[key].replace("{workdir}", str(workdir)) for key in ("authentic", "synthetic", "output")}
    with made.unlocked():
        made.update({"batch_size": 16, "planted": 5, **paths, **changes})
    return made


def test_audit_of_datasets(workdir):
    shown = []
    result = audit.run(
        config(workdir, matchers=("matcher", "second"), show_pairs=True),
        workdir,
        write_page=lambda folder, told, pairs: shown.append((folder, told, pairs)),
    )
    text = (workdir / "privacy" / "audit.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["matcher"] == "matcher" and list(found["other_matchers"]) == ["second"]
    assert {k: found["sets"]["heldout"][k] for k in ("identities", "pictures", "fta")} == {
        "identities": 3, "pictures": 12, "fta": 0,
    }  # fmt: skip
    assert found["score_sets"]["authentic_synthetic"]["count"] == {"mated": 6 * 4 * 3, "non_mated": 24 * 18 - 72}
    assert found["score_sets"]["authentic_authentic"]["count"]["mated"] == 6 * 6
    assert found["score_sets"]["nearest_authentic"]["count"] == {"synthetic": 18}
    assert found["score_sets"]["nearest_synthetic"]["count"] == {"members": 24, "heldout": 12}
    for relation in found["relations"].values():
        assert 0 <= relation["eer"] <= 1 and {"d_sys_null", "auc_interval", "det"} <= set(relation)
        assert len(relation["det"]["fmr"]) == len(relation["det"]["fnmr"]) <= 200
    rate = found["match_rates"]["authentic_synthetic"]["1e-2"]
    assert rate["ratio_to_chance"] == pytest.approx(rate["rate"] / rate["fmr"])
    assert found["controls"]["planted"]["kinds"]["exact"]["planted"] == 5
    assert found["linkage"]["pooled"]["all"]["mean"]["rank1"]["chance"] == 1 / 6
    assert found["labels"] == {"shared": 6, "how": "number"} and found["screening"]["copies"]["members"]["equal"] == 0
    assert result["level"] == found["verdict"]["level"]
    assert result["eer"] == found["relations"]["authentic_synthetic"]["eer"]
    (folder, told, pairs) = shown[0]
    assert folder == workdir / "privacy" and told == found
    suspicious = [*found["screening"]["suspicious"], *found["screening"]["copies"]["suspicious"]]
    assert len(pairs) == min(len({row["picture"] for row in suspicious}), 12)
    assert not any({"member", "identity"} & set(row) for row in suspicious)
    assert not (workdir / "privacy" / "matching").exists()


def test_folders_named_alike_are_audited_like_datasets(workdir, tmp_path):
    for name, count, first in (("real", 4, 0), ("made", 3, 100)):
        for identity in range(6):
            for index, image in enumerate(tiny.render(np.full(count, identity), first + np.arange(count))):
                pictures.write_png(tmp_path / name / f"p{identity:03d}" / f"{index}.png", image)
    folders = {"authentic": f"{tmp_path}/real", "synthetic": f"{tmp_path}/made", "output": f"{tmp_path}/out"}
    from_folders = audit.run(config(workdir, **folders), workdir)
    assert from_folders["membership_auc"] is None
    caveats = files.read_json(tmp_path / "out" / "audit.json")["verdict"]["caveats"]
    assert "There are no held-out identities, so membership was not tested." in caveats
    from_datasets = audit.run(config(workdir), workdir)
    assert from_folders["eer"] == pytest.approx(from_datasets["eer"])
    assert from_folders["match_rates"] == from_datasets["match_rates"]


def test_embeddings_are_audited_without_a_network(tmp_path):
    rng = np.random.default_rng(0)
    for name, labels in (
        ("a", np.repeat(np.arange(8), 4)),
        ("s", np.repeat(np.arange(8), 3)),
        ("h", np.repeat(np.arange(20, 26), 2)),
    ):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((len(labels), 16), np.float32))
        np.save(tmp_path / f"{name}.labels.npy", labels)
    paths = {key: f"{tmp_path}/{name}.npy" for key, name in (("authentic", "a"), ("synthetic", "s"), ("heldout", "h"))}
    changes = paths | {"output": f"{tmp_path}/out", "generator": str(tmp_path)}
    found = audit.run(config(tmp_path, matchers=("theirs",), **changes), epath.Path(tmp_path))
    assert found["matcher"] == "theirs" and 0 < found["membership_auc"] < 1
    told = files.read_json(tmp_path / "out" / "audit.json")
    assert told["released"] == told["discriminator"] == {} and told["screening"]["copies"]["of"] == "embedding"
    assert set(told["controls"]["planted"]["kinds"]) == {"exact", "other"}


def test_sets_without_a_common_identity_have_no_question_of_labels(workdir, tmp_path):
    for identity in range(4):
        for index, image in enumerate(tiny.render(np.full(3, 30 + identity), np.arange(3))):
            pictures.write_png(tmp_path / "made" / f"stranger{identity}" / f"{index}.png", image)
    found = audit.run(config(workdir, synthetic=f"{tmp_path}/made", output=f"{tmp_path}/out"), workdir)
    told = files.read_json(tmp_path / "out" / "audit.json")
    assert told["linkage"] == {} and told["match_rates"]["authentic_synthetic"] == {} and found["eer"] is None
    assert "The sets share no identity, so that nothing could be asked about labels." in told["verdict"]["caveats"]
    assert told["membership"]["identity"]["auc"] == found["membership_auc"]


def test_what_is_flagged_is_left_out_and_the_rest_judged_by_another(workdir, tmp_path):
    tiny.write_dataset(
        epath.Path(tmp_path) / "made", {"train": 14}, each=3, first_index=100
    )  # members, others, strangers
    changes = {
        "synthetic": f"{tmp_path}/made",
        "rates": (0.06,),
        "exclude_rate": 0.06,
        "filtered": f"{tmp_path}/filtered",
        "output": f"{tmp_path}/out",
    }
    audit.run(config(workdir, matchers=("matcher", "second"), **changes), workdir)
    told = files.read_json(tmp_path / "out" / "audit.json")["remedy"]
    assert 0 < told["excluded"] < 42 and told["kept"] == 42 - told["excluded"]
    assert (told["matcher"], told["judge"], told["unused_judge"]) == ("matcher", "second", True)
    left = dataset.open(f"{tmp_path}/filtered", "synthetic")["train"]
    assert len(left) == told["kept"]
    listed = (tmp_path / "out" / "exclude.tsv").read_text().splitlines()
    assert len(listed) == told["excluded"] + 1
    made = (tmp_path / "filtered" / "manifest.json").read_text()
    audit.run(config(workdir, matchers=("matcher", "second"), **changes), workdir)  # the same again
    assert (tmp_path / "filtered" / "manifest.json").read_text() == made
    with pytest.raises(UserError, match="is there already"):
        audit.run(config(workdir, **changes | {"filtered": f"{workdir}/synthetic"}), workdir)
    with pytest.raises(UserError, match="only 20 of 42 synthetic pictures would be screened"):
        audit.run(config(workdir, **changes | {"max_pictures": 20}), workdir)
    with pytest.raises(
        UserError, match="is not written, all else is: these sets support no false positive rate of 1e-3"
    ):
        audit.run(config(workdir, **changes | {"rates": (1e-3,), "exclude_rate": 1e-3}), workdir)


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
    rate, rank1 = found["match_rates"]["authentic_synthetic"]["1e-2"], found["linkage"]["single"]["rank1"]
    assert f"**{found['verdict']['level']}**" in figures and found["membership"]["power"] in figures
    assert f"| {100 * rate['rate']:.3g} %, " in figures and f"| {100 * rank1['rate']:.3g} % |" in figures
    assert f"| {found['membership']['identity']['auc']:.3f} |" in figures
    assert "`matcher`, whose figures these are; others found: second: " in figures
    assert "18 of the 18 synthetic pictures" in figures and "Control: with shuffled labels" in figures
    again = {"sets": found["sets"], "synthetic_sha256": None, **found}
    assert card.write(folder, found["synthetic_sha256"], again) and (folder / "README.md").read_text() == told

    files.write_json(folder / "manifest.json", {"complete": True, "shards": dict.fromkeys(shards, "2")})  # drawn anew
    assert not card.write(folder, found["synthetic_sha256"], found) and "gets no figures" in caplog.text
    assert not card.write(workdir / "nowhere", None, found) and (folder / "README.md").read_text() == told


def test_a_section_is_written_whatever_could_not_be_measured(workdir):
    audit.run(config(workdir, planted=0), workdir)
    found = files.read_json(workdir / "privacy" / "audit.json")
    bare = found | {"membership": {}, "match_rates": {"authentic_synthetic": {}}, "controls": {}, "linkage": {}}
    bare["sets"] = {name: size for name, size in found["sets"].items() if name != "heldout"}
    text = card.section(bare, "0")
    assert "| who trained the generator | not tested |  |  |" in text and "Control" not in text and "None" not in text
    for level, procedural, said in (
        ("linkable", False, "Handle the dataset as the pictures it was made from"),
        ("could not be tested", False, "Handle the dataset as the pictures it was made from"),
        ("not detected by these attacks at this power", False, "no proof of anonymity"),
        ("linkable", True, "no living person is concerned"),
    ):
        found = bare | {"verdict": bare["verdict"] | {"level": level}, "procedural": procedural}
        assert said in card.section(found, "0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matchers": ("authentic",)}, "there is no network authentic"),
        ({"matchers": ("matcher",), "teacher": "matcher"}, "is the teacher"),
        ({"matchers": ()}, "--config.matchers"),
        ({"synthetic": "nowhere"}, "nowhere"),
        ({"exclude_rate": 0.5}, "one of config.rates"),
        ({"rates": (5.0,)}, "between 0 and 1"),
        ({"flip": "foo"}, "is none of none, sum, concatenate"),
        ({"output": ""}, "config.output is empty"),
        ({"generator": "nowhere"}, "there is no folder nowhere"),
        ({"released": ("nobody",)}, "there is no network nobody"),
        ({"exclude_rate": 0.0, "filtered": "there"}, "which pictures are to be left out"),
    ],
)
def test_mistakes_are_told(workdir, changes, message):
    with pytest.raises(UserError, match=message):
        audit.run(config(workdir, **changes), workdir)
