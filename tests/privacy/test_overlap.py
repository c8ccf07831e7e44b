"""Stage overlap: what two sets have in common is found by name, by pixels and by a recogniser, and told."""

import io
import unicodedata

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from configs import overlap as config_file
from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.data import pairs
from sface_jax.data.sources import ProceduralFaces
from sface_jax.privacy.inputs import entries, same_names
from sface_jax.privacy.overlap import people, same_people
from sface_jax.privacy.overlap import stage as overlap
from tests.verification import tiny

FIRST = {"Ann_Lee": 0, "Bob_Ray": 1, "Cia_Poe": 2, "José_Ruiz": 3, "00017": 4, "Eve_Orr": 5}
FIRST |= {name: 20 + i for i, name in enumerate(("Fay_Ode", "Gus_Elm", "Hal_Ash", "Ivy_Fir", "Jan_Yew", "Leo_Oak"))}
SECOND = {"Ann_Lee": 0, "Zed_Fox": 1, "Dan_Moe": 12, "jose ruiz 2": 3, "00017": 14, "Kim_Orr": 15}


def write(folder: epath.Path, identities: dict[str, int], first: int, count: int = 3) -> epath.Path:
    for name, identity in identities.items():
        for index, image in enumerate(tiny.render(np.full(count, identity), first + np.arange(count))):
            pictures.write_png(folder / name / f"{name}_{index + 1:04d}.png", image)
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp("work"))
    write(path / "first", FIRST, 0)
    write(path / "second", SECOND, 100)
    # one picture of both sets, in two formats
    shared = tiny.render(np.array([2]), np.array([50]))[0]
    pictures.write_png(path / "first" / "Cia_Poe" / "shared.png", shared)
    buffer = io.BytesIO()
    Image.fromarray(shared).save(buffer, format="BMP")
    files.write_bytes(path / "second" / "Dan_Moe" / "other.bmp", buffer.getvalue())
    files.write_bytes(path / "second" / "Kim_Orr" / "cut.png", pictures.encode_png(shared)[:100])
    tiny.write_network(path / "recognition" / "matcher")
    return path


def config(workdir: epath.Path, *sets: str, **changes):
    made = config_file.get_config()
    entries = sets or (f"first={workdir}/first", f"second={workdir}/second")
    with made.unlocked():
        made.update({"sets": entries, "pictures": 0, "batch_size": 16, **changes})
    return made


def test_identities_are_found_by_name_pixels_and_recogniser(workdir, caplog):
    result = overlap.run(config(workdir, matcher="matcher"), workdir)
    found = files.read_json(workdir / "overlap" / "overlap.json")
    assert found["sets"]["second"] == {"identities": 6, "pictures_looked_at": 19, "pictures": 20} | {
        "unreadable": 1,
        "identities_unreadable": 0,
    }
    assert (
        "second: unreadable pictures are left out: 1, and with them all of 0 identities" in caplog.text
        and "Kim_Orr/cut.png" in caplog.text
    )
    threshold = found["threshold"]
    assert (threshold["comparisons"], threshold["false_matches"], threshold["fmr"]) == (81, 0, 0)
    assert threshold["fmr_at_most"] == pytest.approx(3 / 81, rel=0.02) and "at most 0.037" in threshold["words"]
    assert len(threshold["most_alike_within"]["first"]) == 10
    (both,) = found["pairs"]
    by = {(f["first"], f["second"]): f for f in both["found"]}
    assert by["Ann_Lee", "Ann_Lee"]["by_name"] == "equal" and by["Ann_Lee", "Ann_Lee"]["confirmed"]
    assert by["José_Ruiz", "jose ruiz 2"]["by_name"] == "normalised"
    assert by["Bob_Ray", "Zed_Fox"]["confirmed"] and not by["Bob_Ray", "Zed_Fox"]["by_name"]
    assert by["Cia_Poe", "Dan_Moe"]["pictures"] == 1
    assert by["00017", "00017"]["placeholder"] and not by["00017", "00017"]["counts"]
    assert (both["by_name"], both["by_name_not_confirmed"], both["by_placeholder_borne_out"]) == (2, 0, 0)
    assert (workdir / "overlap" / "exclude.txt").read_text().splitlines() == [
        "Ann_Lee",
        "Bob_Ray",
        "Cia_Poe",
        "José_Ruiz",
    ]
    assert result["exclude"] == both["identities_of_first"] == both["identities_of_second"] == 4
    assert result["summaries"] == [both["summary"]] and both["summary"] == (
        "first and second: 2 identities by name (1 written differently), 2 of them confirmed by pictures' embeddings, "
        "1 placeholder name in both, which by themselves say nothing, none of them borne out by the recogniser or an "
        "equal picture, 2 more found by the recogniser (at most 2.6 expected by chance), 1 equal picture"
    )
    page = (workdir / "overlap" / "overlap.html").read_text()
    assert "José_Ruiz" in page and "data:image/jpeg;base64," in page and str(workdir) not in page
    assert "Equal placeholders, which say nothing: not counted (1)" in page and "http" not in page


def test_without_a_recogniser_names_and_pixels_are_compared(workdir):
    result = overlap.run(config(workdir, pictures=1), workdir)
    found = files.read_json(workdir / "overlap" / "overlap.json")
    assert found["threshold"] is None and found["sets"]["first"]["pictures_looked_at"] == 12
    assert result["summaries"][0].endswith("borne out by an equal picture, no equal pictures among those looked at")
    assert (workdir / "overlap" / "exclude.txt").read_text() == "Ann_Lee\nJosé_Ruiz\n"


def test_datasets_benchmarks_and_packs_are_sets(workdir, tmp_path):
    tiny.write_dataset(workdir / "authentic", {"train": 3, "heldout": 3}, each=2)
    files.write_text(
        tmp_path / "pairs.txt", "2\nAnn_Lee\t1\t2\nBob_Ray\t1\t3\nAnn_Lee\t1\tBob_Ray\t2\nCia_Poe\t1\tEve_Orr\t1\n"
    )
    contents = [(workdir / "first" / "Ann_Lee" / f"Ann_Lee_000{i}.png").read_bytes() for i in (1, 2)]
    contents += [contents[0], (workdir / "first" / "Bob_Ray" / "Bob_Ray_0001.png").read_bytes()]
    pairs.write_bin(tmp_path / "pack.bin", contents, np.array([True, False]))
    entries = (f"{tmp_path}/pairs.txt:{workdir}/first", f"{tmp_path}/pack.bin", f"{workdir}/authentic:heldout")
    result = overlap.run(config(workdir, *entries), workdir)
    found = files.read_json(workdir / "overlap" / "overlap.json")
    sizes = {name: (of["identities"], of["pictures_looked_at"]) for name, of in found["sets"].items()}
    assert sizes == {"pairs.txt": (4, 7), "pack.bin": (2, 3), "authentic/heldout": (3, 6)}
    assert result["summaries"][0] == "pairs.txt and pack.bin: names are not known in both, 3 equal pictures"
    assert (workdir / "overlap" / "exclude.txt").read_text() == "Ann_Lee\nBob_Ray\nEve_Orr\n"
    assert [f["second"] for f in found["pairs"][0]["found"]] == ["pair 1a", "pair 2b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": ("a",)}, "two sets or more"),
        ({"sets": ("{0}/first", "x/first={0}/nowhere")}, "nowhere"),
        ({"sets": ("a={0}/first", "b={0}/first/")}, "first/? twice"),
        ({"sets": ("a={0}/first", "a={0}/second")}, "two sets called a"),
        ({"sets": ("{0}/first:heldout", "{0}/second")}, "no dataset with splits"),
        ({"matcher": "nobody"}, "there is no network nobody"),
        ({"fmr": 2.0}, "config.fmr=2.0"),
    ],
)
def test_mistakes_are_told(workdir, changes, message):
    if isinstance(changes.get("sets"), tuple):
        changes = {"sets": tuple(entry.format(workdir) for entry in changes["sets"])}
    with pytest.raises(UserError, match=message):
        overlap.run(config(workdir, **changes), workdir)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("Ann_Lee", "Ann_Lee", same_names.EQUAL),
        ("Ann_Lee", "ann lee", same_names.NORMALISED),
        ("Ann_Lee", "LEE, Ann", same_names.NORMALISED),
        ("Jörg_Weiß", "joerg weiss", None),
        ("Ségolène_Royal", "segolene-royal_0012", same_names.NORMALISED),
        ("face_00001", "face_00002", None),
        ("s1", "s2", None),
        ("n000001", "n000002", None),
        ("王_小明", "王 小明", same_names.NORMALISED),
        ("...", "---", None),
    ],
)
def test_names_of_one_person(first, second, kind):
    assert same_names.pairs([first, "Someone_Else"], ["Nobody_Known", second]) == ({(0, 1): kind} if kind else {})


@pytest.mark.parametrize(
    ("names", "placeholders"),
    [
        ([f"id{i}" for i in range(8)], 8),
        ([f"n{i:06d}" for i in range(100)] + ["Ann_Lee"], 100),
        ([f"f{i}" for i in range(5)] + [f"m{i}" for i in range(5)], 10),
        (["0", "17", "2019-04"], 3),
        (["id7"], 1),
        (["Ann_Lee", "Bob_Ray", "Cia_Poe_2", "王 小明"], 0),
        ([f"{a}{b} Lee" for a in "abcde" for b in "uvwxyz"] + ["Wei Wang 1", "Wei Wang 2"], 0),
    ],
)
def test_names_that_number_people_are_placeholders(names, placeholders):
    assert len(same_names.placeholders(names)) == placeholders


def test_a_form_of_several_names_says_nothing():
    assert same_names.pairs(["John_Smith_1", "John_Smith_2"], ["john smith"]) == {}
    assert same_names.pairs(["John Smith", "John_Smith"], ["John_Smith", "JOHN SMITH"]) == {
        (1, 0): same_names.EQUAL
    } | {(0, 1): same_names.NORMALISED}


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=8), st.data())
def test_each_identity_is_paired_once_and_equal_names_always(first, data):
    second = data.draw(
        st.permutations([*first[:4], *{unicodedata.normalize("NFD", n.upper()) for n in first} - set(first)])
    )
    found = same_names.pairs(first, second)
    assert len({a for a, _ in found}) == len({b for _, b in found}) == len(found)
    equal = {(a, b) for (a, b), kind in found.items() if kind == same_names.EQUAL}
    assert equal == {(a, second.index(name)) for a, name in enumerate(first) if name in second}


def people_of(rows: np.ndarray, name: str = "set", named: bool = True, names: list[str] | None = None) -> people.People:
    count = len(rows)
    source = ProceduralFaces(seed=0, identities=count, pictures_per_identity=1, image_size=8)
    places, own = np.arange(count), np.arange(count).astype(np.uint64) + np.uint64(1000 * len(name))
    return people.People(name, names or source.class_names, source, places, places, own, 0, 0, named)


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_threshold_is_frozen_on_strangers_within_sets():
    rows = unit(200)
    scores = np.sort((rows @ rows.T)[np.triu_indices(200, 1)])
    sets, seen = [people_of(rows), people_of(rows, "pack", named=False)], [rows, rows]
    threshold, strangers = same_people.freeze(sets, seen, 1e-3)
    assert threshold.comparisons == 19900 and threshold.false_matches == (scores >= threshold.value).sum() <= 19
    assert (scores >= threshold.value - 2e-4).sum() > threshold.false_matches
    assert list(strangers) == ["set"]
    assert [pair.similarity for pair in strangers["set"]] == pytest.approx(scores[:-11:-1])
    strict, _ = same_people.freeze(sets, seen, 1e-9)
    assert strict.false_matches == 0 and scores[-1] < strict.value < scores[-1] + 2e-4 and "at most" in strict.words


@pytest.mark.parametrize(("k", "limit"), [(0, 2.996), (1, 4.744), (4, 9.154), (30, 40.691)])
def test_what_is_not_known_of_the_fmr_is_told(k, limit):
    assert same_people.Threshold(0.5, 1000, k).fmr_at_most == pytest.approx(limit / 1000, rel=0.01)  # Poisson's


@pytest.mark.parametrize("count", [1, 3, 11, 12])
def test_a_few_people_freeze_no_threshold_and_confirm_nobody(count):
    sets, seen = [people_of(unit(count)), people_of(unit(count), "other", named=False)], (unit(count), unit(count))
    threshold, _ = same_people.freeze(sets, list(seen), 1e-3)
    shared = same_people.compare(*sets, seen, threshold)
    assert shared.looked == (count == 12) and len(shared.found) == (12 if count == 12 else 0)
    assert ("confirms nobody" in threshold.words) == ("has no threshold" in shared.summary) == (count < 12)


def test_a_network_that_sees_no_difference_confirms_nobody():
    same = np.ones((12, 4), np.float32) / 2
    threshold, _ = same_people.freeze([people_of(same)], [same], 1e-3)
    assert threshold.value is None and "as alike as equal pictures" in threshold.words


def test_a_placeholder_counts_where_pictures_bear_it_out():
    rows, others = unit(40), unit(40, seed=1)
    others[:3] = rows[:3]
    first, second = people_of(rows, "a"), people_of(others, "bb")
    second.hashes[5] = first.hashes[5]
    for looked, witnesses in ((True, {0, 1, 2, 5}), (False, {5})):
        threshold = same_people.Threshold(0.999, 1000, 0) if looked else None
        shared = same_people.compare(first, second, (rows, others) if looked else None, threshold)
        assert not shared.by_name and len(shared.by_placeholder) == 40
        assert {f.places[0] for f in shared.found if f.counts} == witnesses
        assert f"40 placeholder names in both, which by themselves say nothing, {len(witnesses)} of" in shared.summary


def test_matches_beyond_the_neighbours_are_counted():
    rows = np.tile(unit(1), (8, 1))
    sets = people_of(rows, "a", names=[*"abcdefgh"]), people_of(rows, "bb", names=[*"ijklmnop"])
    shared = same_people.compare(*sets, (rows, rows), same_people.Threshold(0.5, 1000, 0))
    assert len(shared.found) == 40 and shared.unlisted == 24 and "64 found by the recogniser" in shared.summary


def test_names_are_escaped_and_what_cannot_be_read_is_told(tmp_path, caplog):
    tmp_path = epath.Path(tmp_path)
    for folder, seed in (("one", 0), ("two", 50)):
        write(tmp_path / folder, {"<b>Ann & Co": seed, "B" * 120: seed + 1, "id7": seed + 2}, 0, count=1)
        files.write_bytes(tmp_path / folder / "Cia Poe" / "1.png", b"no picture")
    result = overlap.run(config(tmp_path, f"{tmp_path}/one", f"{tmp_path}/two"), tmp_path)
    page = (tmp_path / "overlap" / "overlap.html").read_text()
    assert result["exclude"] == 3 and "<b>" not in page and "&lt;b&gt;Ann &amp; Co" in page
    assert "all of 1 identities; the first is Cia Poe/1.png" in caplog.text


def test_a_list_of_files_in_one_folder_has_identities_by_its_pairs(tmp_path):
    for i in range(4):
        pictures.write_png(tmp_path / "flat" / f"{i}.png", tiny.render(np.array([i]), np.array([0]))[0])
    files.write_text(tmp_path / "pairs.txt", "flat/0.png flat/1.png 1\nflat/2.png flat/3.png 0\n")
    found = people.open_people(entries.parse(f"{tmp_path}/pairs.txt:{tmp_path}", "sets"), 0)
    assert (
        not found.named and found.names == ["pair 1a", "pair 2a", "pair 2b"] and found.labels.tolist() == [0, 0, 1, 2]
    )


def test_a_recogniser_without_finite_embeddings_is_refused(monkeypatch):
    monkeypatch.setattr(people, "embed", lambda *_, **__: np.full((2, 4), np.nan, np.float32))
    with pytest.raises(UserError, match="no finite embedding for 2 identities of set"):
        people.means(people_of(unit(2)), tiny.untrained(), batch_size=2, flip="none")


def test_a_placeholder_is_no_common_picture():
    first, second = people_of(np.zeros((30, 1)), "a"), people_of(np.zeros((30, 1)), "bb")
    for many, expected in ((2, (4, 1, 0)), (30, (0, 0, 1))):
        for one in (first, second):
            one.hashes[:many] = 7
        pairs_found, *told = same_people._equal_pictures(first, second)
        assert (len(pairs_found), *told) == expected


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_mated_pairs_connect_the_pictures_of_a_person(graph):
    count, edges = graph
    label = list(range(count))
    for a, b in edges * count:
        label[a] = label[b] = min(label[a], label[b])
    ends = np.array(edges, np.int64).reshape(-1, 2)
    got = people._connected(count, ends[:, 0], ends[:, 1])
    np.testing.assert_array_equal(got, np.unique(label, return_inverse=True)[1])
