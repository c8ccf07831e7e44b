import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import align, blocks, dataset, folders, landmarks, pairs, prepare, records, splits
from sface_jax.data.blocks import Blocks, Conversion
from tests.core import store

ROOT = Path(__file__).parents[2]


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

    assert pictures.decode((tmp_path / "authentic" / "preview.png").read_bytes()).shape == (3 * 33 - 1, 4 * 33 - 1, 3)

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


def test_an_object_store_gets_the_same_dataset(tmp_path, face_folder, prepare_config):
    config = prepare_config(source=str(face_folder(pictures_each=6)), heldout_identities=0.34, image_size=8)
    with store.here() as bucket:
        assert run(config, tmp_path) == run(config, epath.Path(bucket) / "run")
        folders = tmp_path / "authentic", epath.Path(bucket) / "run" / "authentic"
        assert files.read_json(folders[0] / "manifest.json") == files.read_json(folders[1] / "manifest.json")
        assert {path.name for path in folders[1].iterdir()} == {path.name for path in folders[0].iterdir()}
        assert {path.name for path in folders[1].parent.iterdir()} == {"authentic"}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def interrupt(monkeypatch):
    """Runs a config until two shards are written, as a run that is cut off then."""

    def until_two_shards(config, workdir):
        written = []

        def interrupted(directory, split, shard, shards, examples, whole=records.write_shard):
            if len(written) == 2:
                raise KeyboardInterrupt
            whole(directory, split, shard, shards, examples)
            written.append(records.shard_path(directory, split, shard, shards))

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(records, "write_shard", interrupted)
            run(config, workdir)
        return written

    return until_two_shards


def test_an_interrupted_build_goes_on_and_ends_with_the_same_bytes(tmp_path, face_folder, prepare_config, interrupt):
    config = prepare_config(source=str(face_folder()), image_size=8, shard_size=5)
    run(config, tmp_path / "whole")
    written = interrupt(config, tmp_path / "work")
    assert all(path.name.startswith(".") for path in (tmp_path / "work").iterdir())
    written[0].with_name(".half.tmp").write_text("what a kill -9 leaves behind")
    made = [shard.stat().mtime for shard in written]
    run(config, tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["authentic"]
    assert contents(tmp_path / "work" / "authentic") == contents(tmp_path / "whole" / "authentic")
    finished = [tmp_path / "work" / "authentic" / shard.name for shard in written]
    assert [shard.stat().st_mtime for shard in finished] == pytest.approx(made)  # they were not written again


def change_a_name(source):
    (source / "s1").rename(source / "zed")


def change_a_picture(source):
    picture = source / "s3" / "2.png"
    Image.new("RGB", (8, 8), (9, 9, 9)).save(picture)


def change_the_splits(source):
    (source / "s6" / "9.png").write_bytes((source / "s6" / "1.png").read_bytes())


@pytest.mark.parametrize("change", [change_a_name, change_a_picture, change_the_splits])
def test_a_source_that_changed_meanwhile_is_read_anew(tmp_path, face_folder, prepare_config, interrupt, change):
    source = face_folder(size=(8, 8))
    config = prepare_config(source=str(source), image_size=8, shard_size=5)
    interrupt(config, tmp_path / "work")
    change(source)
    run(config, tmp_path / "work")
    run(config, tmp_path / "whole")
    assert contents(tmp_path / "work" / "authentic") == contents(tmp_path / "whole" / "authentic")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["authentic"]


def test_a_picture_that_was_mended_is_read_anew(tmp_path, face_folder, prepare_config):
    source = face_folder(size=(8, 8))
    whole = (source / "s1" / "1.png").read_bytes()
    (source / "s1" / "1.png").write_bytes(whole[:50])
    config = prepare_config(source=str(source), image_size=8)
    with pytest.raises(UserError, match="1 of 24 pictures"):
        run(config, tmp_path / "work")
    (source / "s1" / "1.png").write_bytes(whole)
    assert run(config, tmp_path / "work")["skipped"] == 0
    assert not (tmp_path / "work" / "skipped.txt").exists()


def test_two_runs_do_not_work_in_one_folder(tmp_path, face_folder, prepare_config):
    config = prepare_config(source=str(face_folder()), image_size=8)
    with prepare._alone(epath.Path(tmp_path / "work" / "authentic")):
        with pytest.raises(UserError, match="another run is at work"):
            run(config, tmp_path / "work")
    run(config, tmp_path / "work")


def test_a_worker_that_dies_is_told(tmp_path, face_folder, monkeypatch):
    monkeypatch.setattr(blocks, "_work", os._exit)  # as the system kills a process that takes too much memory
    made = Blocks(folders.FolderSource(face_folder()), Conversion(8), epath.Path(tmp_path / "authentic"))
    with pytest.raises(UserError, match="a worker process was killed.*lower --config.workers"):
        list(made.convert([0], workers=2))


def test_killed_by_sigkill_it_goes_on_and_ends_with_the_same_bytes(tmp_path, face_folder):
    """The real command, in processes of its own."""
    source = face_folder(identities=50, pictures_each=60, size=(8, 8))  # 3 blocks
    command = [sys.executable, "-m", "sface_jax.main", "--config=configs/prepare.py", f"--config.source={source}"]
    command += ["--config.image_size=8", "--config.workers=2"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    def start(workdir):
        return subprocess.Popen(
            [*command, f"--workdir={workdir}"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )

    process = start(tmp_path / "work")
    while not list((tmp_path / "work").glob(".authentic.blocks-*/*.npz")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "work" / "authentic").exists()
    assert start(tmp_path / "work").wait(100) == start(tmp_path / "whole").wait(100) == 0
    assert contents(tmp_path / "work" / "authentic") == contents(tmp_path / "whole" / "authentic")
    made = {path.name for path in (tmp_path / "work").iterdir()}
    assert made == {"authentic", "config.json", "stages.json", "logs"}


def test_pictures_of_the_right_size_keep_their_bytes(tmp_path, face_folder, prepare_config):
    source = face_folder(suffix="jpg", size=(8, 8))
    Image.new("L", (8, 8)).save(source / "s1" / "1.jpg")  # grey: not every reader would make three channels of it
    Image.new("RGB", (9, 8)).save(source / "s1" / "2.jpg")
    run(prepare_config(source=str(source), image_size=8, heldout_identities=0), tmp_path)
    split = dataset.open(tmp_path / "authentic")["train"]
    stored = {name: split.encoded(i) for i, name in enumerate(split.names())}
    changed = {name for name, content in stored.items() if content != (source / name).read_bytes()}
    assert changed == {"s1/1.jpg", "s1/2.jpg"}
    told = files.read_json(tmp_path / "authentic" / "manifest.json")["pictures"]
    assert (told["bytes_kept"], told["encoded_anew"]) == (22, 2)


def test_unreadable_pictures_are_refused_or_counted_and_named(tmp_path, face_folder, prepare_config):
    source = face_folder(identities=3, suffix="jpg", size=(40, 40))
    broken = source / "s2" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    (source / "s3" / "2.jpg").write_bytes(b"")
    config = dict(source=str(source), image_size=8, heldout_identities=0)
    with pytest.raises(UserError, match=r"2 of 12 pictures under .* the first is s2/3.jpg .*max_unreadable from 0.01"):
        run(prepare_config(**config), tmp_path)
    counts = run(prepare_config(max_unreadable=0.2, **config), tmp_path)
    assert counts["skipped"] == 2 and counts["splits"]["train"] == {"identities": 3, "pictures": 10}
    lines = [line.split("\t") for line in (tmp_path / "skipped.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == ["s2/3.jpg", "s3/2.jpg"] and all(reason for _, reason in lines)
    assert "s2/3.jpg" not in dataset.open(tmp_path / "authentic")["train"].names()


def test_small_identities_are_refused_or_dropped(tmp_path, face_folder, prepare_config):
    source = face_folder(identities=4, pictures_each=2)
    (source / "s2" / "1.png").unlink()
    config = dict(source=str(source), image_size=8, heldout_identities=0)
    with pytest.raises(UserError, match=r"1 of 4 identities .* fewer than 2 pictures \(the first: s2\).*drop_small_i"):
        run(prepare_config(**config), tmp_path)
    assert not list(tmp_path.glob(".*"))
    run(prepare_config(drop_small_identities=True, **config), tmp_path)
    assert dataset.open(tmp_path / "authentic").class_names == ["s1", "s3", "s4"]
    # All that is told is told of the dataset, and what is left out is named.
    assert (tmp_path / "skipped.txt").read_text() == "s2/2.png\tis of an identity with too few pictures\n"
    told = files.read_json(tmp_path / "authentic" / "manifest.json")["pictures"]
    assert (told["in_source"], told["of_identities_with_too_few"], told["encoded_anew"]) == (7, 1, 6)
    found = files.read_json(tmp_path / "authentic" / "validation.json")
    assert (found["pictures"], found["identities"], found["findings"]["single"]["count"]) == (6, 3, 0)


def test_names_that_would_shift_others_are_refused(tmp_path, face_folder, prepare_config):
    source = face_folder(identities=3)
    (source / "s1").rename(source / "line\u2028separator")
    with pytest.raises(UserError, match=r"an identity called 'line\\u2028separator': rename it"):
        run(prepare_config(source=str(source), image_size=8, heldout_identities=0), tmp_path)


def test_a_slip_in_the_list_of_excluded_identities_is_told(tmp_path, face_folder, prepare_config, caplog):
    source = face_folder(identities=4)
    (tmp_path / "exclude.txt").write_text("s1 \nS2\ns99\n")
    config = dict(source=str(source), image_size=8, heldout_identities=0, exclude=str(tmp_path / "exclude.txt"))
    run(prepare_config(**config), tmp_path)
    assert dataset.open(tmp_path / "authentic").class_names == ["s2", "s3", "s4"]
    assert "2 of 3 identities" in caplog.text and "S2, s99" in caplog.text
    manifest = files.read_json(tmp_path / "authentic" / "manifest.json")
    assert manifest["selection"]["exclude"]["path"] == config["exclude"]
    assert manifest["pictures"]["of_excluded_identities"] == 4


def test_what_pictures_carry_is_told_and_stripped_where_that_is_asked(tmp_path, face_folder, prepare_config, caplog):
    source = face_folder(identities=3, suffix="jpg", size=(8, 8))
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe, 12 Main Street"
    Image.open(source / "s1" / "1.jpg").save(source / "s1" / "1.jpg", exif=exif, quality="keep", comment="shy")
    config = dict(source=str(source), image_size=8, heldout_identities=0)
    run(prepare_config(**config), tmp_path / "keep")
    assert "1 pictures carry EXIF" in caplog.text
    run(prepare_config(strip_metadata=True, **config), tmp_path / "strip")
    whole, stripped = (dataset.open(tmp_path / name / "authentic")["train"] for name in ("keep", "strip"))
    assert (
        b"Jane Doe" in whole.encoded(0) and b"Jane Doe" not in stripped.encoded(0) and b"shy" not in stripped.encoded(0)
    )
    np.testing.assert_array_equal(whole.decode_all(), stripped.decode_all())
    assert [whole.encoded(i) == stripped.encoded(i) for i in range(12)] == [False] + [True] * 11


def test_equal_pictures_are_told_and_dropped_where_that_is_asked(tmp_path, face_folder, prepare_config):
    source = face_folder(identities=4, pictures_each=4, size=(8, 8))
    (source / "s1" / "2.png").write_bytes((source / "s1" / "1.png").read_bytes())  # one of these stays
    (source / "s3" / "4.png").write_bytes((source / "s2" / "4.png").read_bytes())  # neither does: who is it?
    config = dict(source=str(source), image_size=8, heldout_identities=0)
    run(prepare_config(**config), tmp_path / "keep")
    found = files.read_json(tmp_path / "keep" / "authentic" / "validation.json")["findings"]
    assert found["repeated"]["examples"] == [["s1/1.png", "s1/2.png"]]
    assert found["shared"]["examples"] == [["s2/4.png", "s3/4.png"]]
    counts = run(prepare_config(duplicates="drop", **config), tmp_path / "drop")
    assert counts["skipped"] == 3
    names = dataset.open(tmp_path / "drop" / "authentic")["train"].names()
    assert set(names) == {f"s{i}/{j}.png" for i in range(1, 5) for j in range(1, 5)} - {
        "s1/2.png",
        "s2/4.png",
        "s3/4.png",
    }


def test_alignment_by_given_landmarks_counts_failures_to_acquire(tmp_path, face_folder, prepare_config):
    source = face_folder(identities=3, pictures_each=4, size=(60, 50))
    given = {f"s{i}/{j}.png": align.template(32) + (10, 5) for i in range(1, 4) for j in range(1, 5)}
    del given["s2/3.png"]
    landmarks.write(tmp_path / "points.tsv", given)
    config = dict(source=str(source), image_size=32, heldout_identities=0, align="landmarks")
    with pytest.raises(UserError, match="go together"):
        run(prepare_config(**config), tmp_path)
    run(prepare_config(landmarks=str(tmp_path / "points.tsv"), **config), tmp_path)
    told = files.read_json(tmp_path / "authentic" / "manifest.json")["pictures"]
    assert told["failures_to_acquire"] == 1
    assert (tmp_path / "skipped.txt").read_text() == "s2/3.png\tno landmarks are given\n"
    split = dataset.open(tmp_path / "authentic")["train"]
    cut = np.asarray(Image.open(source / "s1" / "1.png"))[5:37, 10:42]
    aligned = split[split.names().index("s1/1.png")]["image"].astype(int)
    assert np.abs(aligned - cut).max() <= 3  # the file has hundredths of a pixel


def test_splits_are_written_and_can_be_given(tmp_path, face_folder, prepare_config):
    source = str(face_folder(identities=12, pictures_each=6))
    shares = dict(heldout_identities=3, matcher_identities=2, verification_identities=2)
    run(prepare_config(source=source, image_size=8, **shares), tmp_path / "a")
    drawn = dataset.open(tmp_path / "a" / "authentic")
    assert drawn.splits == ("train", "heldout", "matcher", "verification")
    for split, identities in (("heldout", 3), ("verification", 2)):
        told = pairs.read_split_pairs(tmp_path / "a" / "authentic" / f"{split}_pairs.txt", drawn[split])
        assert told.folds == 10 and drawn[split].num_classes == identities
    (tmp_path / "exclude.txt").write_text(f"{drawn.class_names[0]}\n")
    file = str(tmp_path / "a" / "authentic" / "splits.tsv")
    given = dict(splits=file, exclude=str(tmp_path / "exclude.txt"), seed=7)
    run(prepare_config(source=source, image_size=8, **given), tmp_path / "b")
    again = dataset.open(tmp_path / "b" / "authentic")
    assert again.class_names == drawn.class_names[1:] and again.splits == drawn.splits
    for split in again.splits[1:]:
        assert again[split].names() == drawn[split].names()


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
        (dict(matcher_identities=0.1), "matcher_identities=0.1 of 6 identities is one, which leaves nobody"),
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
    shares = dict(heldout_identities=heldout, matcher_identities=matcher, verification_identities=0)
    chosen = splits.choose(names, ConfigDict(dict(seed=seed, splits="", **shares)))
    assert sorted(name for of_split in chosen.values() for name in of_split) == sorted(names)
    assert list(chosen)[0] == "train" and ("heldout" in chosen) == bool(heldout)
    for of_split in chosen.values():
        assert of_split == sorted(of_split, key=names.index)
