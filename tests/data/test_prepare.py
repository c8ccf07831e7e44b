import hashlib

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.data import builders, dataset, pairs, prepare


def run(config, workdir):
    return prepare.run(config, epath.Path(workdir))


def test_procedural_faces_become_a_dataset(tmp_path, prepare_config):
    counts = run(prepare_config(identities=7, matcher_identities=2.0), tmp_path)
    splits = {"train": (3, 12), "heldout": (2, 8), "matcher": (2, 8)}
    assert counts["splits"] == {k: {"identities": i, "pictures": p} for k, (i, p) in splits.items()}
    opened = dataset.open(tmp_path / "authentic")
    assert opened.splits == ("train", "heldout", "matcher")
    assert [opened[split].classes.tolist() for split in opened.splits] == [[0, 1, 2], [3, 4], [5, 6]]
    manifest = files.read_json(tmp_path / "authentic" / "manifest.json")
    assert manifest["procedural"] and manifest["counts"] == counts
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "authentic" / name).read_bytes()).hexdigest() == digest
    drawn = pairs.read_split_pairs(tmp_path / "authentic" / "heldout_pairs.txt", opened["heldout"])
    assert len(drawn) == 20 and drawn.folds == 10 and drawn.same.sum() == 10

    from sface_jax.data import faces

    item = opened["heldout"][5]
    identity, index = item["name"].split("/")
    assert identity == opened.class_names[item["label"]]
    number = np.array([int(identity.removeprefix("face_"))])
    np.testing.assert_array_equal(item["image"], faces.render(0, number, np.array([int(index)]), 32)[0])


def test_folders_become_the_same_dataset_every_time(tmp_path, face_folder, prepare_config):
    config = prepare_config(source=str(face_folder(pictures_each=6)), heldout_identities=0.34, image_size=8)
    assert run(config, tmp_path / "a") == run(config, tmp_path / "b")
    manifests = [files.read_json(tmp_path / workdir / "authentic" / "manifest.json") for workdir in "ab"]
    assert manifests[0] == manifests[1] and not manifests[0]["procedural"]
    assert manifests[0]["counts"]["splits"]["heldout"] == {"identities": 2, "pictures": 12}


def test_an_interrupted_build_leaves_nothing_and_runs_again(tmp_path, face_folder, prepare_config, monkeypatch):
    config = prepare_config(source=str(face_folder()), image_size=8)
    whole = builders.layout.write_labels

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(builders.layout, "write_labels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
    monkeypatch.setattr(builders.layout, "write_labels", whole)
    # What a kill -9 leaves behind.
    (tmp_path / "work" / ".authentic.building").mkdir()
    (tmp_path / "work" / ".authentic.building" / "dataset_info.json").write_text("{}")
    run(config, tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["authentic"]
    assert len(dataset.open(tmp_path / "work" / "authentic")["train"]) == 16


def test_never_touches_a_folder_that_it_did_not_make(tmp_path, face_folder, prepare_config):
    source = face_folder().rename(tmp_path / "authentic")
    with pytest.raises(UserError, match="not made by stage prepare"):
        run(prepare_config(source=str(source), image_size=8), tmp_path)
    assert len(list(source.glob("*/*.png"))) == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(source=""), "set --config.source"),
        (
            dict(heldout_identities=5.0),
            "6 identities less heldout_identities=5 and matcher_identities=0 leave 1 to train",
        ),
        (dict(matcher_identities=1.0), "matcher_identities=1 leaves nobody"),
        (dict(pictures_per_identity=2), "4 pictures of 2 held-out identities give no 10 folds of pairs"),
        (dict(image_size=4), "procedural faces are"),
    ],
)
def test_impossible_requests_leave_nothing(tmp_path, prepare_config, changes, message):
    with pytest.raises(UserError, match=message):
        run(prepare_config(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


@given(
    total=st.integers(8, 60),
    heldout=st.sampled_from([0, 2, 3, 0.25]),
    matcher=st.sampled_from([0, 2, 0.25]),
    seed=st.integers(0, 99),
)
def test_splits_share_no_identity(total, heldout, matcher, seed):
    names = [f"p{i}" for i in range(total)]
    config = ConfigDict(dict(seed=seed, heldout_identities=heldout, matcher_identities=matcher))
    splits = prepare.choose_splits(names, config)
    assert sorted(name for chosen in splits.values() for name in chosen) == sorted(names)
    assert list(splits)[0] == "train" and ("heldout" in splits) == bool(heldout)
    for chosen in splits.values():
        assert chosen == sorted(chosen, key=names.index)
