"""The sets of an audit: any format opens, identities meet by name, number or table, and nothing is dropped untold."""

import io

import numpy as np
import pytest
from etils import epath
from hypothesis import given as drawn
from hypothesis import strategies as st
from PIL import Image

from configs import privacy
from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import formats
from sface_jax.privacy.inputs import given, listed, numbering, sets
from sface_jax.privacy.inputs.entries import parse, refuse_equal
from sface_jax.privacy.inputs.sources import Source
from tests.verification import tiny

PEOPLE = ("ann", "ben", "cia")


def write(folder: epath.Path, names, first=0, count=2, start=0) -> str:
    for identity, name in enumerate(names, start):
        for index, image in enumerate(tiny.render(np.full(count, identity), first + np.arange(count))):
            pictures.write_png(folder / name / f"{index}.png", image)
    return str(folder)


def config(authentic, synthetic, **changes):
    made = privacy.get_config()
    with made.unlocked():
        made.update({"authentic": str(authentic), "synthetic": str(synthetic), **changes})
    return made


def opened(*paths, **changes) -> sets.Sets:
    return sets.open_sets(config(*paths, **changes), ["m"])


def by_name(source: Source) -> dict[str, int]:
    return {name: number for number, name in source.names.items()}


@pytest.fixture
def here(tmp_path):
    return epath.Path(tmp_path)


def test_any_format_gives_the_same_pictures(here):
    folder = write(here / "folder", PEOPLE, count=3)
    read = formats.open_source(folder)
    paths = [folder, *(f"{here}/{name}" for name in ("a.rec", "a.tar", "a.parquet"))]
    for path in paths[1:]:
        formats.write(path, read)
    whole = np.arange(9)
    seen = [
        listed.open_listed("members", parse(path, "authentic"), config(path, path)).look(whole, 0.0) for path in paths
    ]
    for source in seen:
        assert source.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and source.labelled
        assert source.hashes.tolist() == seen[0].hashes.tolist()
        assert (source.faces.at(16).images(np.array([3, 1])).shape) == (2, 16, 16, 3)
        assert (source.faces.picture(4) == pictures.decode(read.read(4))).all()
    assert [source.faces.kind for source in seen] == ["folders", "RecordIO", "WebDataset", "list or Parquet"]
    assert seen[0].faces.name(4) == "ben/1.png"
    some = opened(folder, paths[1], max_pictures=4).sources["members"]
    assert some.figures["pictures"] == 4 and some.in_all == 9 and np.bincount(some.labels).min() == 1
    for place, position in enumerate(some.faces.positions.tolist()):
        assert some.faces.name(place) == f"{PEOPLE[position // 3]}/{position % 3}.png"
        assert (some.faces.picture(place) == pictures.decode(read.read(position))).all()


def test_two_datasets_share_their_numbers(here):
    tiny.write_dataset(here / "authentic", {"train": 3, "heldout": 2}, each=2)
    tiny.write_dataset(here / "synthetic", {"train": 3}, each=2, first_index=9)
    found = opened(here / "authentic", here / "synthetic")
    assert {name: np.unique(s.labels).tolist() for name, s in found.sources.items()} == {
        "members": [0, 1, 2],
        "synthetic": [0, 1, 2],
        "heldout": [3, 4],
    }
    assert found.shared == 3 and not found.notes and found.needs_network
    other = opened(here / "authentic", f"{here}/authentic:heldout", heldout=write(here / "zoe", ["zoe"], first=30))
    assert other.shared == 0 and not set(other.sources["synthetic"].labels) & set(other.sources["heldout"].labels)


def test_a_flat_folder_and_labels_that_mean_nothing(here):
    authentic, synthetic = write(here / "a", PEOPLE), here / "flat"
    for place, image in enumerate(tiny.render(np.arange(4), np.arange(4))):
        pictures.write_png(synthetic / f"{place}.png", image)
    found = opened(authentic, synthetic)
    source = found.sources["synthetic"]
    assert not source.labelled and len(set(source.labels.tolist())) == 4 and found.shared == 0
    assert found.notes == ["synthetic: it is not known who is who, so every face counts as another person"]
    alike = write(here / "b", PEOPLE, first=9)
    assert opened(authentic, alike).shared == 3 and opened(authentic, alike, labels="own").shared == 0
    assert len(np.unique(opened(authentic, alike, labels="own").sources["synthetic"].labels)) == 3
    none = opened(authentic, alike, labels="none", heldout=write(here / "c", ("zoe",), first=30))
    assert {name: (s.labelled, len(np.unique(s.labels))) for name, s in none.sources.items()} == {
        "members": (True, 3),
        "heldout": (True, 1),
        "synthetic": (False, 6),
    }
    assert none.shared == 0 and none.how == ""
    with pytest.raises(UserError, match="which config.labels=own rules out"):
        opened(authentic, alike, labels="own", identity_map="map.tsv")
    with pytest.raises(UserError, match="which a set without labels rules out"):
        opened(authentic, synthetic, identity_map="map.tsv")


def test_pictures_that_cannot_be_read_are_failures_to_acquire(here, caplog):
    authentic, synthetic = write(here / "a", PEOPLE), write(here / "b", PEOPLE, first=9)
    files.write_bytes(here / "a" / "ben" / "cut.png", (here / "a" / "ben" / "0.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"1 of 7 pictures of members cannot be read, the first ben/cut.png: .*allow"):
        opened(authentic, synthetic)
    members = opened(authentic, synthetic, max_unreadable=0.2).sources["members"]
    assert members.figures["unreadable"] == 1 and members.figures["fta"] == pytest.approx(1 / 7)
    assert len(members) == 6 and "1 of 7 pictures of members cannot be read and are left out" in caplog.text


def test_a_held_out_person_who_is_a_member_is_left_out(here):
    authentic, synthetic = write(here / "a", PEOPLE), write(here / "b", PEOPLE, first=9)
    held = here / "held"
    write(held, ("zoe", "yan"), start=7)
    write(held, ("cia",), first=50, start=2)
    buffer = io.BytesIO()  # a member's picture in another format under another name
    Image.fromarray(tiny.render(np.array([0]), np.array([0]))[0]).save(buffer, format="BMP")
    files.write_bytes(held / "zoe" / "x.bmp", buffer.getvalue())
    found = opened(authentic, synthetic, heldout=str(held))
    heldout = found.sources["heldout"]
    assert [heldout.names[n] for n in np.unique(heldout.labels)] == ["yan"] and heldout.passed_over == 5
    assert found.notes == [
        "2 held-out identities are members, 1 by name and 1 by an equal picture: they are left out of the test"
    ]
    with pytest.raises(UserError, match="no other is left"):
        opened(authentic, synthetic, heldout=write(here / "h", ("ann",), first=70))
    full, others = write(here / "f", ("Ann_Lee", "Ben_Ray")), ("ann lee", "RAY-BEN", "Cia_Poe")
    spelt = opened(full, synthetic, heldout=write(here / "s", others, first=80))
    assert (
        "2 held-out identities are members, 2 by name" in spelt.notes[1] and spelt.sources["heldout"].passed_over == 4
    )
    numbered = write(here / "n", ("001", "002"), first=40), write(here / "o", ("001", "002"), first=50, start=5)
    assert not opened(numbered[0], synthetic, labels="own", heldout=numbered[1]).notes  # numbers name nobody


def test_unseen_pictures_are_of_members_and_did_not_train(here):
    authentic, synthetic = write(here / "a", PEOPLE), write(here / "b", PEOPLE, first=9)
    unseen = write(here / "u", ("ben", "cia"), first=1, start=1)  # the first of each trained
    found = opened(authentic, synthetic, unseen=unseen)
    assert found.sources["unseen"].labels.tolist() == [1, 2] and "2 unseen pictures are equal" in found.notes[0]
    with pytest.raises(UserError, match="1 identities of it are others, such as zoe"):
        opened(authentic, synthetic, unseen=write(here / "v", ("ben", "zoe"), first=70))
    with pytest.raises(UserError, match="none of them is unseen"):
        opened(authentic, synthetic, unseen=write(here / "w", ("ben",), start=1))


def test_a_table_tells_who_was_made_from_whom(here):
    authentic, synthetic = write(here / "a", PEOPLE), write(here / "b", ("x", "y", "z"), first=9)
    files.write_text(here / "map.tsv", "# synthetic\tauthentic\nx\tcia\ny\tcia\n\nunused\tann\n")
    found = opened(authentic, synthetic, identity_map=f"{here}/map.tsv")
    assert found.sources["synthetic"].labels.tolist() == [2, 2, 2, 2, 3, 3] and found.shared == 1
    assert "2 of 6 synthetic pictures are of nobody among" in found.notes[0] and found.how == "config.identity_map"
    for text, message in (
        ("x cia\n", "line 1 of .* must be a new"),
        ("x\tann\nx\tann\n", "line 2 of .* must be a new"),
        ("x\tzoe\n", "'zoe' is no identity"),
        ("q\tann\n", "no identity of config.synthetic, such as 'x'"),
    ):
        files.write_text(here / "map.tsv", text)
        with pytest.raises(UserError, match=message):
            opened(authentic, synthetic, identity_map=f"{here}/map.tsv")
    files.write_bytes(here / "map.tsv", "x\tann\r\ny\tben\r\n".encode("utf-8-sig"))
    assert opened(authentic, synthetic, identity_map=f"{here}/map.tsv").shared == 2
    files.write_bytes(here / "map.tsv", "x\tJosé\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 at byte 5: save"):
        opened(authentic, synthetic, identity_map=f"{here}/map.tsv")
    with pytest.raises(UserError, match="there is no file"):
        opened(authentic, synthetic, identity_map=f"{here}/nowhere.tsv")


def matched(names: list[str], known: list[str]) -> dict[str, str]:
    found = numbering.match(dict(enumerate(names)), dict(enumerate(known)))
    return {names[mine]: known[theirs] for mine, theirs in found.numbers.items()}


def test_identities_meet_by_one_way_only():
    assert matched(["cia", "zoe"], ["ann", "ben", "cia"]) == {"cia": "cia"}
    assert matched(["00002", "00001"], ["ann", "ben", "cia"]) == {}  # a place in some order is a guess
    assert matched(["0", "1"], ["1", "2"]) == {"1": "1"}  # and 0 is not the first of them
    assert matched(["5", "6"], ["00005", "00009"]) == {"5": "00005"}
    assert matched(["1", "01"], ["ann", "ben"]) == {}
    assert matched(["x"], ["ann"]) == {}
    assert [numbering.match({0: name}, {0: "0007", 1: "ann"}).how for name in ("ann", "7")] == ["name", ""]


def test_names_that_do_not_link_are_told(here):
    found = opened(write(here / "a", PEOPLE), write(here / "b", ("0", "1"), first=9))
    assert found.shared == 0 and found.how == "" and "such as '0' and 'ann'" in found.notes[0]
    assert "name them alike or give config.identity_map" in found.notes[0]


@drawn(
    st.lists(st.text("01ab", min_size=1), min_size=1, unique=True), st.lists(st.text("01ab", min_size=1), unique=True)
)
def test_no_two_identities_become_one(names, known):
    found = numbering.match(dict(enumerate(names)), dict(enumerate(known, 10))).numbers
    assert len(set(found.values())) == len(found) and set(found.values()) <= set(range(10, 10 + len(known)))


@drawn(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 3))
def test_a_cap_takes_evenly_from_all_identities(labels, most, seed):
    labels = np.array(labels)
    chosen = listed.evenly(labels, most, seed)
    assert len(chosen) == min(most, len(labels)) and (np.diff(chosen) > 0).all()
    taken, there = np.bincount(labels[chosen], minlength=6), np.bincount(labels, minlength=6)
    assert (taken[taken < there] >= taken.max() - 1).all()


def test_a_cap_takes_the_same_people_from_all_sets(here):
    rng = np.random.default_rng(0)
    orders = {name: rng.permutation([f"p{i}" for i in range(first, 40)]) for name, first in (("a", 0), ("b", 20))}
    for name, order in orders.items():
        np.savez(here / f"{name}.npz", embeddings=rng.standard_normal((80, 4)), labels=np.resize(order, 80))
    found = opened(here / "a.npz", here / "b.npz", max_pictures=10)
    assert found.shared == 10 and found.how == "name"
    assert found.notes == [
        "members: 10 of 40 identities are looked at, as config.max_pictures asks",
        "synthetic: 10 of 20 identities are looked at, as config.max_pictures asks",
    ]
    more = opened(here / "a.npz", here / "b.npz", max_pictures=25)
    assert more.shared == 20 and len(np.unique(more.sources["members"].labels)) == 25
    drawn = [
        set(opened(here / "a.npz", here / "b.npz", max_pictures=10, seed=s).sources["members"].labels) for s in (0, 1)
    ]
    assert drawn[0] == set(found.sources["synthetic"].labels) != drawn[1]
    rows = more.sources["members"]
    stored = np.load(here / "a.npz")["labels"]
    assert [rows.names[label] for label in rows.labels] == stored[rows.faces.positions].tolist()


def test_what_folders_hold_beside_pictures_is_told(here):
    authentic, synthetic = write(here / "a", PEOPLE), write(here / "b", PEOPLE, first=9)
    for path in ("a/ben/x.gif", "a/ann.png", "a/.hidden", "a/readme.txt", "b/cia/deeper/1.png"):
        files.write_bytes(here / path, b"")
    members, made = opened(authentic, synthetic).notes
    assert members.startswith("members: 2 entries of its folder passed over, such as ann.png: pictures should lie at")
    assert made.startswith("synthetic: 1 entry of its folder passed over, such as deeper: ")
    pictures.write_png(here / "flat" / "1.png", np.zeros((8, 8, 3), np.uint8))
    files.write_bytes(here / "flat" / "2.gif", b"")
    assert "such as 2.gif: only pictures directly" in opened(synthetic, here / "flat").notes[1]


def test_embeddings_are_a_set(here):
    rng = np.random.default_rng(0)
    rows = 3 * rng.standard_normal((6, 4))
    np.save(here / "a.npy", rows)
    np.save(here / "a.labels.npy", np.array(["ann", "ann", "ben", "ben", "cia", "cia"]))
    np.savez(here / "b.npz", embeddings=rows[:4].astype(np.float32), labels=[2, 2, 0, 0], names=PEOPLE)
    np.savez(here / "c.npz", embeddings=rng.standard_normal((3, 4)))
    found = opened(here / "a.npy", here / "b.npz", heldout=f"{here}/c.npz")
    assert not found.needs_network and found.shared == 2
    assert found.sources["synthetic"].labels.tolist() == [2, 2, 0, 0]
    assert found.sources["heldout"].labels.tolist() == [3, 4, 5] and not found.sources["heldout"].labelled
    faces = found.sources["members"].faces
    assert (faces.kind, faces.name(5)) == ("embeddings", "row 5")
    np.testing.assert_allclose(
        faces.of("m").unit(np.array([1, 4])), rows[[1, 4]] / np.linalg.norm(rows[[1, 4]], axis=1)[:, None], 1e-6
    )
    assert (
        opened(here / "a.npy", here / "b.npz", heldout=f"{here}/c.npz", max_pictures=2).sources["heldout"].in_all == 3
    )


def test_each_matcher_has_its_own_embeddings(here):
    np.savez(here / "m.npz", embeddings=np.eye(4), labels=[0, 0, 1, 1])
    np.savez(here / "n.npz", embeddings=-np.eye(4), labels=[0, 0, 1, 1])
    np.savez(here / "o.npz", embeddings=np.eye(4), labels=[0, 0, 0, 1])
    np.savez(here / "s.npz", embeddings=np.ones((2, 4)))
    faces = opened(f"{here}/{{matcher}}.npz", here / "s.npz").sources["members"].faces
    assert faces.of("m").embeddings[0, 0] == 1 and faces.of("n").embeddings[0, 0] == -1
    with pytest.raises(UserError, match="differ in number or labels"):
        faces.of("o")


def test_embeddings_must_be_there_for_each_matcher(here):
    np.savez(here / "m.npz", embeddings=np.eye(4), labels=[0, 0, 1, 1])
    np.savez(here / "s.npz", embeddings=np.ones((2, 4)))
    for authentic, synthetic, message in (
        ("{matcher}.npz", "{matcher}.npz", "config.synthetic is the same"),
        ("{matcher}.npz", "s.npz", "there are no embeddings at .*/n.npz: "),
        ("m.npz", "s.npz", "config.authentic=.* can be of one matcher only, and 2 are named"),
    ):
        with pytest.raises(UserError, match=message):
            sets.open_sets(config(f"{here}/{authentic}", f"{here}/{synthetic}"), ["m", "n"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"rows": np.eye(2)}, 'has rows: it needs an array "embeddings"'),
        ({"embeddings": np.ones(3)}, r"holds float64 \[3\]"),
        ({"embeddings": np.ones((2, 2), complex)}, "real numbers"),
        ({"embeddings": np.eye(2), "labels": [1]}, "must be 2 whole numbers"),
        ({"embeddings": np.eye(2), "labels": [0.5, 1]}, "must be 2 whole numbers"),
        ({"embeddings": np.eye(2), "labels": [0, 5], "names": ["a"]}, "not numbers below that"),
        ({"embeddings": np.eye(2), "labels": [0, 1], "names": ["a", "a"]}, "two identities one name"),
        ({"embeddings": np.array([[1.0, 0], [0, 0]])}, "row 1 of .* is zero or not finite"),
        ({"embeddings": np.array([[np.inf, 0], [1, 0]])}, "row 0 of .* is zero or not finite"),
    ],
)
def test_embeddings_are_checked(here, arrays, message):
    np.savez(here / "x.npz", **arrays)
    with pytest.raises(UserError, match=message):
        given.read(f"{here}/x.npz").unit(np.arange(2))


def test_mistakes_are_told(here):
    a, b = write(here / "a", PEOPLE), write(here / "b", PEOPLE, first=9)
    files.write_bytes(here / "bad.npz", b"nothing")
    for paths, changes, message in (
        ((a, a), {}, "config.synthetic is the same as config.authentic"),
        ((a, ""), {}, "config.synthetic is empty"),
        ((a, b), {"labels": "some"}, "choose from auto, own, none"),
        ((f"{a}:train", b), {}, "no dataset with splits"),
        ((write(here / "one", ("ann",)), b), {}, "config.authentic holds one identity"),
        ((a, "nowhere"), {}, "there are no pictures at 'nowhere'"),
        ((a, f"{here}/no.npy"), {}, "there are no embeddings at"),
        ((a, f"{here}/bad.npz"), {}, "cannot be read as NumPy writes it"),
    ):
        with pytest.raises(UserError, match=message):
            opened(*paths, **changes)


def test_sets_that_are_one_are_refused(here):
    one, two = parse(f"{here}/a", "x"), parse(f"{here}/a:train", "x")
    refuse_equal([("authentic", one), ("synthetic", parse(f"{here}/b", "x"))])
    with pytest.raises(UserError, match="config.synthetic is the same as config.authentic"):
        refuse_equal([("authentic", one), ("synthetic", two)])
    with pytest.raises(UserError, match="config.authentic names .* twice"):
        refuse_equal([("authentic", one), ("authentic", two)])
