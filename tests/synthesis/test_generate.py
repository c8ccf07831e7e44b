"""The dataset is the same however it was drawn, opens everywhere, and says how it was made."""

import hashlib
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import cards, dataset, records
from sface_jax.synthesis import card, generate
from sface_jax.synthesis.sampling import STRATEGIES
from tests.multi import launch
from tests.synthesis import small


@pytest.fixture(scope="module", autouse=True)
def untrained_generator():
    """Puts the small generator in place of the loader's, and compiles it once for each config of the tests."""
    compiled = {}
    make_draw = generate.make_draw

    def make_draw_once(config, *network):
        key = tuple(config[name] for name in ("seed", "strategy", "shared_seeds", "psi", "noise", "batch_size"))
        if key not in compiled:
            compiled[key] = make_draw(config, *network)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate.network, "load", small.load)
        patch.setattr(generate, "make_draw", make_draw_once)
        yield


def run(folder, **changes):
    """Runs the stage; returns its result."""
    return generate.run(small.config(folder, **changes), epath.Path(folder).parent)


def run_rejecting(folder, **changes):
    """Runs it with rejection."""
    return generate.run(small.rejecting(folder, **changes), epath.Path(folder).parent, small.open_embedder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The dataset of the unchanged config; tests only read it."""
    folder = tmp_path_factory.mktemp("whole") / "synthetic"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def rejected(tmp_path_factory):
    """The dataset with rejection, and the stage's result; tests only read it."""
    folder = tmp_path_factory.mktemp("rejected") / "synthetic"
    return folder, run_rejecting(folder)


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it, to be changed."""
    return pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))


def contents(folder):
    """Every file of a folder, by its relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images(folder):
    split = dataset.open(folder)["train"]
    return split.images(np.arange(len(split)))


def test_the_dataset_opens_and_has_what_was_asked_for(whole):
    split = dataset.open(whole)["train"]
    np.testing.assert_array_equal(split.labels, np.repeat(np.arange(5), 3))
    assert split.class_names[4] == "synthetic-000004" and split[14]["name"] == "synthetic-000004/000002"
    drawn = images(whole)
    assert drawn.shape == (15, 8, 8, 3)
    assert len(np.unique(drawn, axis=0)) == 15


def test_tfds_opens_it(whole):
    tfds = pytest.importorskip("tensorflow_datasets")
    source = tfds.builder_from_directory(str(whole)).as_data_source("train")
    assert len(source) == 15 and source[7]["label"] == 2
    np.testing.assert_array_equal(source[7]["image"], images(whole)[7])


@pytest.mark.parametrize("strategy", ["free", "identity_driven"])
def test_a_picture_depends_on_neither_batch_nor_shard_nor_number_of_pictures(tmp_path, strategy):
    run(tmp_path / "one", strategy=strategy)
    run(tmp_path / "other", strategy=strategy, per_class=2, batch_size=5, shard_size=7, classes=4)
    first, second = images(tmp_path / "one").reshape(5, 3, 8, 8, 3), images(tmp_path / "other").reshape(4, 2, 8, 8, 3)
    difference = np.abs(first[:4, :2].astype(int) - second)
    assert difference.max() <= 1 and difference.mean() < 1e-2  # a last bit may round another way


def test_every_key_of_the_recipe_changes_the_pictures(whole, tmp_path):
    changes = {
        "none": {},
        "psi": {"psi": 0.5},
        "pool": {"strategy": "shared_seeds"},
        "centre": {"strategy": "class_centre", "psi": 0.5},
        "driven": {"strategy": "identity_driven", "noise": "random"},
    }
    drawn = {"random": images(whole)}
    for name, change in changes.items():
        run(tmp_path / name, **{"noise": "none", **change})
        drawn[name] = images(tmp_path / name)
    for first, second in itertools.combinations(drawn, 2):
        assert np.mean(drawn[first] != drawn[second]) > 0.3, f"{first} and {second} give the same pictures"


def test_a_run_that_was_cut_off_ends_with_the_same_bytes(whole, tmp_path, monkeypatch):
    write_shard = records.write_shard

    def cut_off(directory, split, shard, shards, examples):
        if shard == 2:
            next(iter(examples))
            raise KeyboardInterrupt
        return write_shard(directory, split, shard, shards, examples)

    folder = tmp_path / "resumed"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "write_shard", cut_off)
        run(folder)
    assert json.loads((folder / "manifest.json").read_text())["complete"] is False
    assert run(folder)["drawn_by_this_process"] == 7, "the two whole shards were drawn again"
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize(("layout", "drawn"), list(zip(launch.LAYOUTS, ([8, 7], [4, 4, 4, 3]), strict=True)))
def test_several_processes_and_devices_write_the_same_bytes(whole, rejected, tmp_path, layout, drawn):
    results = launch.launch("synthesis_worker", tmp_path, **layout)
    assert [result["devices"] for result in results] == [layout.get("devices", 1)] * layout["processes"]
    assert [result["drawn_by_this_process"] for result in results] == drawn
    assert [result["forced"] for result in results] == [rejected[1]["forced"]] * len(results)
    assert contents(tmp_path / "plain") == contents(whole)
    assert contents(tmp_path / "rejecting") == contents(rejected[0])


def test_manifest_and_card_say_how_it_was_made_and_nothing_else(whole):
    files = contents(whole)
    manifest = json.loads(files["manifest.json"])
    recipe = manifest["recipe"]
    assert manifest["complete"]
    assert (recipe["seed"], recipe["psi"], recipe["strategy"], recipe["generator"]["step"]) == (0, 1.0, "free", 7)
    assert len(manifest["shards"]) == 4
    for name, digest in manifest["shards"].items():
        assert hashlib.sha256(files[name]).hexdigest() == digest
    told = files["README.md"].decode()
    assert recipe["generator"]["sha256"] in told and "not anonymous" in told
    assert pictures.decode(files["preview.png"]).shape == (5 * 9 - 1, 3 * 9 - 1, 3)
    assert "pictures that are not known here" in told
    for name, content in files.items():
        assert str(whole.parent).encode() not in content, f"{name} tells a path of this machine"


def test_the_licence_is_told_wherever_the_dataset_is_opened(whole, tmp_path):
    assert "To be set by whoever releases" in (whole / "README.md").read_text()
    run(tmp_path / "synthetic", licence="CC BY-NC 4.0")
    read = {name: (tmp_path / "synthetic" / name).read_text() for name in ("README.md", "manifest.json")}
    assert "## Licence\n\nCC BY-NC 4.0. The licence and the consent" in read["README.md"]
    assert json.loads(read["manifest.json"])["licence"] == "CC BY-NC 4.0"
    info = json.loads((tmp_path / "synthetic" / "dataset_info.json").read_text())
    assert info["redistributionInfo"] == {"license": "CC BY-NC 4.0"}


def test_figures_of_an_audit_stay_with_the_pictures_they_are_of(copy):
    digest = json.loads((copy / "manifest.json").read_text())["sha256"]
    assert digest == cards.digest_of(copy)
    plain = (copy / "README.md").read_text()
    assert "states no privacy figure" in cards.section(plain, "Privacy")
    for figures, kept in ((f"Linkable: `{digest}`.", True), ("Linkable: `another dataset`.", False)):
        (copy / "README.md").write_text(cards.with_section(plain, "Privacy", figures))
        run(copy)
        told = (copy / "README.md").read_text()
        assert cards.section(told, "Privacy") == figures if kept else told == plain


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_its_words_in_the_card(whole, name):
    recipe = json.loads((whole / "manifest.json").read_text())["recipe"]
    told = card.write({**recipe, "strategy": name, "shared_seeds": 1000, "centre_samples": 512}, {})
    assert f"`{name}`: " in told and "| rejection | none |" in told and "{" not in told.replace('{"image"', "")


def test_the_card_says_where_pictures_were_chosen_by_their_likeness_to_authentic_ones(rejected):
    manifest = json.loads((rejected[0] / "manifest.json").read_text())
    recipe, counts = manifest["recipe"], manifest["rejection"]
    assert "chosen by their likeness" not in card.write(recipe, counts)
    recipe["rejection"]["centres"] = "authentic"
    assert "chosen by their likeness" in card.write(recipe, counts)


def attempts(folder):
    """The attempt that was taken of each picture of the dataset."""
    return np.concatenate([np.load(path) for path in sorted((folder / "attempts").iterdir())])


def test_rejection_redraws_what_fails_and_keeps_what_passes_at_once(whole, rejected):
    folder, result = rejected
    taken, plain, chosen = attempts(folder), images(whole), images(folder)
    counts = {"accepted_at_once": (taken == 0).sum(), "redrawn": (taken > 0).sum(), "forced": (taken < 0).sum()}
    assert all(counts.values()), "the example shows nothing"
    np.testing.assert_array_equal(chosen[taken == 0], plain[taken == 0])
    changed = (chosen != plain).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, (taken != 0) & (taken != -1))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rejection"] == counts and counts.items() <= result.items()
    assert manifest["recipe"]["rejection"]["attempts"] == 3
    told = (folder / "README.md").read_text()
    assert "at least 0.88 with the centre of its class" in told
    assert f"Accepted at once: {counts['accepted_at_once']};" in told


def test_an_attempt_depends_on_neither_batch_nor_shard(rejected, tmp_path):
    run_rejecting(tmp_path / "other", per_class=2, batch_size=5, shard_size=7, classes=4)
    np.testing.assert_array_equal(
        attempts(rejected[0]).reshape(5, 3)[:4, :2], attempts(tmp_path / "other").reshape(4, 2)
    )


def test_a_rejecting_run_that_was_cut_off_ends_with_the_same_bytes(rejected, tmp_path):
    folder = pathlib.Path(shutil.copytree(rejected[0], tmp_path / "copy"))
    for name in ("face_dataset-train.array_record-00001-of-00004", "attempts/train-00002-of-00004.npy"):
        (folder / name).unlink()
    assert run_rejecting(folder)["drawn_by_this_process"] == 8
    assert contents(folder) == contents(rejected[0])


def test_copies_of_authentic_pictures_are_rejected(whole, tmp_path):
    """The authentic dataset is what the generator draws at first."""
    changes = {"min_class_similarity": 0.0, "max_other_similarity": 1.0, "max_authentic_similarity": 0.9999}
    result = run_rejecting(tmp_path / "synthetic", authentic=str(whole), **changes)
    assert (result["accepted_at_once"], result["redrawn"], result["forced"]) == (0, 15, 0)
    told = (tmp_path / "synthetic" / "README.md").read_text()
    assert "at most 0.9999 with any authentic picture of its class" in told and "centre" not in told


def test_the_card_tells_what_the_generator_learned_from(tmp_path, monkeypatch):
    run(tmp_path / "unknown")
    assert "pictures that are not known here" in (tmp_path / "unknown" / "README.md").read_text()

    def load(folder, checkpoint):
        generator, variables, facts = small.load(folder)
        return generator, variables, {**facts, "trained_on": {"identities": 5, "pictures": 1234, "procedural": True}}

    monkeypatch.setattr(generate.network, "load", load)
    run(tmp_path / "synthetic")
    assert "1,234 faces drawn by a program" in (tmp_path / "synthetic" / "README.md").read_text()


def test_png_folders_hold_the_same_pictures(whole, tmp_path):
    run(tmp_path / "synthetic", png_folders=True)
    folder = tmp_path / "synthetic" / "png"
    files = sorted(folder.glob("*/*.png"))
    assert len(files) == 15 and files[0].relative_to(folder) == pathlib.Path("synthetic-000000/000000.png")
    np.testing.assert_array_equal(np.stack([pictures.decode(file.read_bytes()) for file in files]), images(whole))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"strategy": "fre"}, "did you mean 'free'"),
        ({"noise": "loud"}, "config.noise='loud'"),
        ({"per_class": 0}, "config.per_class=0"),
        ({"classes": 6}, "the generator knows 5"),
        ({"centre_samples": 0}, "config.centre_samples=0"),
        ({"max_other_similarity": 0.5}, "rejection needs a recogniser"),
    ],
)
def test_a_key_without_sense_is_told_before_anything_is_written(tmp_path, change, line):
    with pytest.raises(UserError, match=line):
        run(tmp_path / "synthetic", **change)
    assert not list(tmp_path.iterdir())


def test_shards_of_two_recipes_never_mix(copy):
    before = contents(copy)
    with pytest.raises(UserError, match="another seed"):
        run(copy, seed=1)
    assert contents(copy) == before


def test_a_dataset_of_an_older_manifest_goes_on(copy):
    """Keys that were not there then stand for what they leave out."""
    manifest = json.loads((copy / "manifest.json").read_text())
    for key in ("centre_samples", "rejection"):
        del manifest["recipe"][key]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert run(copy)["drawn_by_this_process"] == 0
    with pytest.raises(UserError, match="another rejection"):
        run_rejecting(copy)


def test_a_foreign_dataset_is_left_alone(copy):
    (copy / "manifest.json").write_text('{"made_by": "prepare"}')
    before = contents(copy)
    with pytest.raises(UserError, match="did not write"):
        run(copy)
    assert contents(copy) == before
