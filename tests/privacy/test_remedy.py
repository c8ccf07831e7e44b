"""What is flagged is listed, and the dataset without it is a dataset."""

import csv

import numpy as np
import pytest
from etils import epath

from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import cards, dataset, formats, records
from sface_jax.privacy import remedy
from sface_jax.privacy.attacks.screening import screen
from sface_jax.privacy.relations import Faces
from tests.privacy.crowd import people
from tests.verification import tiny

CARD = "# Faces: 4 classes, 12 pictures\n\n![them](preview.png)\n\n## How to read it\n\nSo.\n\n## Privacy\n\nFigures.\n"


@pytest.fixture
def made(tmp_path):
    path = epath.Path(tmp_path / "synthetic")
    tiny.write_dataset(path, {"train": 4, "heldout": 2}, each=3)
    files.write_text(path / cards.FILE, CARD)
    files.write_json(path / cards.MANIFEST, {"complete": True, "sha256": "abc", "licence": "CC0", "shards": {}})
    return path


def test_the_list_names_what_is_flagged_and_no_authentic_picture(tmp_path):
    members, others, fresh = people(60, 4), people(40, 4, first=100), people(300, 4, first=1000)
    synthetic = Faces(np.concatenate([members.embeddings[:30], fresh.embeddings]), np.arange(1230))
    found = screen(synthetic, members, others)
    rows = remedy.exclude(found, "1e-3")
    assert set(range(30)) <= set(rows.tolist()) and (np.diff(rows) > 0).all()
    positions, path = 1000 + np.arange(len(synthetic)), tmp_path / remedy.LIST
    none = np.zeros(0, np.int64)
    assert remedy.write_list(path, found, "1e-3", positions, lambda row: f"a/{row}", none) == len(rows)
    with (tmp_path / remedy.LIST).open() as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert tuple(table[0]) == remedy.HEADER and sorted(int(line["position"]) - 1000 for line in table) == rows.tolist()
    assert all(line["picture"] == f"a/{int(line['position']) - 1000}" and line["rate"] == "1e-3" for line in table)
    kept = remedy.without(synthetic, rows)
    again = screen(kept, members, others)
    compared = remedy.compare({"screening": found.figures()}, {"screening": again.figures()})
    links = next(row for row in compared if row["name"] == "links at FPR 1e-3")
    assert links["before"] >= 30 > links["after"] and links["chance"] == pytest.approx(1.5)
    # a rate that these pictures cannot support flags none: copies are all that is listed
    assert not len(remedy.exclude(found, "1e-5"))
    assert remedy.write_list(path, found, "1e-5", positions, str, np.array([3, 5])) == 2
    assert path.read_text().splitlines()[1:] == ["1003\t3\t\tcopy\t", "1005\t5\t\tcopy\t"]


def test_a_dataset_without_pictures_is_a_dataset(made, tmp_path):
    source, target = formats.open_source(made, "train"), tmp_path / "filtered"
    assert remedy.write_filtered(target, made, source, np.array([0, 4, 5]), {"rate": "1e-3"}) == 9
    old, new = dataset.open(made), dataset.open(target)
    assert new.class_names == old.class_names and new.splits == old.splits
    kept = np.array([1, 2, 3, 6, 7, 8, 9, 10, 11])
    np.testing.assert_array_equal(new["train"].labels, old["train"].labels[kept])
    assert new["train"].names() == [old["train"].names()[i] for i in kept]
    np.testing.assert_array_equal(new["train"].images(np.arange(9)), old["train"].images(kept))
    np.testing.assert_array_equal(new["heldout"].labels, old["heldout"].labels)
    manifest = files.read_json(target / cards.MANIFEST)
    assert (
        manifest["left_out"].items() >= {"pictures": 3, "rate": "1e-3"}.items()
        and manifest["made_from"]["sha256"] == "abc"
    )
    assert cards.digest_of(target) == manifest["sha256"] and manifest["licence"] == "CC0"
    card = (target / cards.FILE).read_text()
    assert "3 pictures are left out" in card and "Figures." not in card and "preview" not in card
    with pytest.raises(UserError, match="is there already"):
        remedy.write_filtered(target, made, source, np.array([0]), {})
    with pytest.raises(UserError, match="none is left"):
        remedy.write_filtered(tmp_path / "none", made, source, np.arange(12), {})
    assert not (tmp_path / "none").exists() and not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


def test_another_split_is_filtered_under_its_own_labels(made, tmp_path):
    source = formats.open_source(made, "heldout")
    remedy.write_filtered(tmp_path / "filtered", made, source, np.array([1]), {}, split="heldout")
    new = dataset.open(tmp_path / "filtered")
    assert new["heldout"].labels.tolist() == [4, 4, 5, 5, 5] and len(new["train"]) == 12


def test_a_folder_without_pictures_is_a_folder(tmp_path):
    for place, image in enumerate(tiny.render(np.arange(6) // 2, np.arange(6))):
        pictures.write_png(tmp_path / "faces" / f"s{place // 2}" / f"{place}.png", image)
    source = formats.open_source(tmp_path / "faces")
    assert remedy.write_filtered(tmp_path / "kept", tmp_path / "faces", source, np.array([2]), {}) == 5
    left = sorted(f"{path.parent.name}/{path.name}" for path in (tmp_path / "kept").glob("*/*"))
    assert left == ["s0/0.png", "s0/1.png", "s1/3.png", "s2/4.png", "s2/5.png"]


def test_shards_hold_what_they_should(made, tmp_path, monkeypatch):
    monkeypatch.setattr(remedy, "_SHARD", 4)
    remedy.write_filtered(tmp_path / "f", made, formats.open_source(made, "train"), np.array([11]), {})
    assert (
        records.shard_path(tmp_path / "f", "train", 2, 3).exists() and len(dataset.open(tmp_path / "f")["train"]) == 11
    )
