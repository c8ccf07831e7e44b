from pathlib import Path

import numpy as np
import pytest
from etils import epath
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from sface_jax.core.errors import UserError
from sface_jax.data import dataset, folders, formats, pairs, records, tables
from sface_jax.data.example import Example

LFW = Path(__file__).parents[2] / ".." / "shared" / "data" / "lfw"
LABELS = st.lists(st.integers(1, 8), min_size=2, max_size=40).map(
    lambda counts: np.repeat(np.arange(len(counts)), counts)
)


@settings(deadline=None)
@given(
    labels=LABELS, folds=st.integers(1, 10), share=st.floats(0.01, 1), seed=st.integers(0, 2**32), order=st.randoms()
)
def test_pairs_are_balanced_distinct_and_folds_disjoint(labels, folds, share, seed, order):
    labels = labels[np.argsort([order.random() for _ in labels])]
    most = pairs.capacity(labels, folds=folds, seed=seed)
    assume(most >= 2)
    per_fold = max(2, int(share * most) // 2 * 2)
    drawn = pairs.make_pairs(labels, folds=folds, pairs_per_fold=per_fold, seed=seed)

    assert len(drawn) == folds * per_fold
    np.testing.assert_array_equal(drawn.same, labels[drawn.first] == labels[drawn.second])
    assert (drawn.same.reshape(folds, per_fold).sum(axis=1) == per_fold // 2).all()
    assert (drawn.first != drawn.second).all()
    assert len({frozenset(pair) for pair in zip(drawn.first, drawn.second, strict=True)}) == len(drawn)
    if len(np.unique(labels)) >= 2 * folds:
        people = labels[np.stack([drawn.first, drawn.second])].reshape(2, folds, per_fold)
        sets = [set(people[:, fold].ravel()) for fold in range(folds)]
        assert sum(map(len, sets)) == len(set.union(*sets))
    again = pairs.make_pairs(labels, folds=folds, pairs_per_fold=per_fold, seed=seed)
    np.testing.assert_array_equal(drawn.first, again.first)
    np.testing.assert_array_equal(drawn.second, again.second)


def test_says_how_many_pairs_there_are():
    labels = np.repeat(np.arange(8), 10)  # ORL's held-out people: 360 mated pairs
    assert pairs.capacity(labels, seed=0) == 72
    with pytest.raises(UserError, match="80 pictures of 8 identities give at most 72 in each of 10 folds"):
        pairs.make_pairs(labels, pairs_per_fold=74, seed=0)


def test_a_written_file_reads_back(tmp_path, write_dataset):
    opened, _, labels = write_dataset(tmp_path / "set", [4] * 8)
    split = opened["train"]
    drawn = pairs.make_pairs(labels, folds=4, pairs_per_fold=6, seed=0)
    pairs.write_pairs_file(tmp_path / "pairs.txt", drawn, labels, split.class_names)
    assert (tmp_path / "pairs.txt").read_text().startswith("4\t3\nperson ")
    read = pairs.read_split_pairs(tmp_path / "pairs.txt", split)
    for name in ("first", "second", "same"):
        np.testing.assert_array_equal(getattr(read, name), getattr(drawn, name))
    assert read.folds == 4


def folder(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    return tmp_path


def test_finds_pictures_by_lfw_number_or_by_order(tmp_path):
    root = folder(tmp_path, ["A_B/A_B_0002.jpg", "A_B/A_B_0007.jpg", "s1/1.pgm", "s1/2.pgm", "s1/10.pgm"])
    (tmp_path / "pairs.txt").write_text("2\nA_B\t2\t7\ns1\t1\t3\nA_B\t7\ts1\t2\ns1\t1\tA_B\t2\n")
    found, read = pairs.read_pairs_file(tmp_path / "pairs.txt", root)
    named = [(found[a].name, found[b].name) for a, b in zip(read.first, read.second, strict=True)]
    assert named == [
        ("A_B_0002.jpg", "A_B_0007.jpg"),
        ("1.pgm", "10.pgm"),
        ("A_B_0007.jpg", "2.pgm"),
        ("1.pgm", "A_B_0002.jpg"),
    ]
    assert read.same.tolist() == [True, True, False, False] and read.folds == 1 and len(found) == 5
    assert read.in_folds(2).same.tolist() == [True, False, True, False]


def test_a_file_means_the_same_pictures_in_a_folder_a_container_and_a_dataset(tmp_path):
    """With gaps in LFW's numbers, names that are not LFW's, and rows in no order."""
    names = [f"A_B/A_B_{i:04d}.png" for i in (2, 7, 9, 12)] + [f"s1/{i}.png" for i in (1, 2, 10)]
    rng, root = np.random.default_rng(0), tmp_path / "faces"
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(root / name)
    (tmp_path / "pairs.txt").write_text("2\nA_B\t2\t12\ns1\t1\t3\nA_B\t7\ts1\t2\ns1\t1\tA_B\t9\n")
    paths, drawn = pairs.read_pairs_file(tmp_path / "pairs.txt", root)
    expected = [[paths[i].read_bytes() for i in side] for side in (drawn.first, drawn.second)]
    assert [paths[i].name for i in drawn.second] == ["A_B_0012.png", "10.png", "2.png", "A_B_0009.png"]
    rows = "".join(f"{name},{name.partition('/')[0]}\n" for name in reversed(names))
    (root / "list.csv").write_text(f"path,label\n{rows}")
    for name in ("a.tar", "a.rec", "a.parquet"):
        formats.write(tmp_path / name, folders.FolderSource(root))
    listed = tables.TableSource(root / "list.csv")
    labels = [0] * 4 + [1] * 3
    examples = [Example((root / name).read_bytes(), label, name) for name, label in zip(names, labels, strict=True)]
    records.write_shard(epath.Path(tmp_path / "set"), "train", 0, 1, examples)
    records.finish(epath.Path(tmp_path / "set"), image_size=8, class_names=["A_B", "s1"], splits={"train": 1})
    split = dataset.open(tmp_path / "set")["train"]
    sources = [formats.open_source(tmp_path / name) for name in ("a.tar", "a.rec", "a.parquet")]
    for source in (folders.FolderSource(root), listed, *sources, dataset.SplitSource(split), split):
        drawn = pairs.read_split_pairs(tmp_path / "pairs.txt", source)
        read = source.encoded if source is split else source.read
        assert [[read(i) for i in side.tolist()] for side in (drawn.first, drawn.second)] == expected

    bare = [name.rpartition("/")[2] for name in names]
    pairs.write_pairs_file(tmp_path / "again.txt", drawn, split.labels, split.class_names, bare)
    assert (tmp_path / "again.txt").read_text().split("\n", 1)[1] == (tmp_path / "pairs.txt").read_text()[2:]


def test_numbers():
    assert pairs.numbers("A.B", ["A.B_0003.jpg", "A.B_0001"]) == [3, 1]
    assert pairs.numbers("A.B", ["A.B_0003.jpg", "AxB_0001.jpg"]) == [1, 2]
    assert pairs.numbers("a", ["a_0002.jpg", "a_0001.jpg", "a_0002.png"]) == [2, 1, 3]  # not told apart by number
    assert pairs.numbers("a", ["10.jpg", "9.jpg", "", ""]) == [4, 3, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\nA_B\t2\t3\nA_B\t2\ts1\t1\n", "line 2: there is no picture 3 of A_B under"),
        ("1\nA_B\t2\t2\nA_B\t2\tC\t1\n", "line 3: there is no picture 1 of C under"),
        ("1\nA_B\t2\n", "line 2 has 2 fields"),
        ("2\nA_B\t2\t2\n", "lists 1 pairs, its first line promises 4"),
        ("1\nA_B\t2\ts1\t1\nA_B\t2\t2\n", "line 2: each fold lists 1 mated"),
        ("", "is empty: a pairs file has lines"),
        ("hello\n", "no pairs file in LFW's format"),
        ("0\nA_B\t2\t2\n", "no pairs file in LFW's format"),
    ],
)
def test_names_what_is_wrong_with_a_file(tmp_path, text, message):
    root = folder(tmp_path, ["A_B/A_B_0002.jpg", "s1/1.pgm"])
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        pairs.read_pairs_file(tmp_path / "pairs.txt", root)
    with pytest.raises(UserError, match="there is no pairs file"):
        pairs.read_pairs_file(tmp_path / "none.txt", root)


@pytest.mark.skipif(not LFW.exists(), reason="LFW is not at ../shared/data/lfw")
def test_reads_lfw():
    found, read = pairs.read_pairs_file(LFW / "pairsDevTest.txt", LFW / "dev_test")
    assert len(read) == 1000 and read.same.sum() == 500 and read.folds == 1
    names = np.array([path.parent.name for path in found])
    np.testing.assert_array_equal(names[read.first] == names[read.second], read.same)
    assert found[read.first[0]].name == "Abdullah_Gul_0013.jpg"
    dealt = read.in_folds(10)
    assert len(dealt) == 1000 and (dealt.same.reshape(10, 100).sum(axis=1) == 50).all()
    found, read = pairs.read_pairs_file(LFW / "pairs.txt", LFW / "view2")
    assert len(read) == 6000 and read.folds == 10 and len(found) == 7701
