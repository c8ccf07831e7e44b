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
from sface_jax.privacy import overlap, pair_sources, people, same_names, same_people
from tests.verification import tiny

FIRST = {"Ann_Lee": 0, "Bob_Ray": 1, "Cia_Poe": 2, "José_Ruiz": 3, "00017": 4, "Eve_Orr": 5}
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
    assert found["sets"]["second"] == {"identities": 6, "pictures_looked_at": 19, "pictures": 20, "unreadable": 1}
    assert "second: 1 pictures cannot be read" in caplog.text and "Kim_Orr/cut.png" in caplog.text
    threshold = found["threshold"]
    assert (threshold["comparisons"], threshold["false_matches"], threshold["fmr"]) == (30, 0, 0.1)
    assert "rule of three" in threshold["words"] and len(threshold["most_alike_within"]["first"]) == 10
    (both,) = found["pairs"]
    by = {(f["first"], f["second"]): f for f in both["found"]}
    assert by["Ann_Lee", "Ann_Lee"]["by_name"] == "equal" and by["Ann_Lee", "Ann_Lee"]["confirmed"]
    assert by["José_Ruiz", "jose ruiz 2"]["by_name"] == "normalised"
    assert by["Bob_Ray", "Zed_Fox"]["confirmed"] and not by["Bob_Ray", "Zed_Fox"]["by_name"]
    assert by["Cia_Poe", "Dan_Moe"]["pictures"] == 1
    assert by["00017", "00017"]["numbers"] and not by["00017", "00017"]["confirmed"]
    assert (workdir / "overlap" / "exclude.txt").read_text().splitlines() == [
        "Ann_Lee",
        "Bob_Ray",
        "Cia_Poe",
        "José_Ruiz",
    ]
    assert result["exclude"] == both["identities_of_first"] == both["identities_of_second"] == 4
    assert result["summaries"] == [both["summary"]] and both["summary"] == (
        "first and second: 3 identities by name (1 written differently; 1 by numbers, which say little), 2 of them "
        "confirmed by pictures' embeddings, 2 more found by the recogniser (below 3.6 expected by chance), "
        "1 equal picture"
    )
    page = (workdir / "overlap" / "overlap.html").read_text()
    assert "José_Ruiz" in page and "data:image/jpeg;base64," in page and str(workdir) not in page
    assert "By name, not confirmed by the recogniser (1)" in page and "http" not in page


def test_without_a_recogniser_names_and_pixels_are_compared(workdir):
    result = overlap.run(config(workdir, pictures=1), workdir)
    found = files.read_json(workdir / "overlap" / "overlap.json")
    assert found["threshold"] is None and found["sets"]["first"]["pictures_looked_at"] == 6
    assert result["summaries"][0].endswith("which say little), no equal pictures among those looked at")
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
        ({"sets": ("{0}/first", "{0}/first")}, "two sets called first"),
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


def people_of(rows: np.ndarray, name: str = "set", named: bool = True) -> people.People:
    count = len(rows)
    source = ProceduralFaces(seed=0, identities=count, pictures_per_identity=1, image_size=8)
    own = [f"{name}{i}" for i in range(count)]
    return people.People(name, source.class_names, source, np.arange(count), np.arange(count), own, 0, named)


def test_the_threshold_is_frozen_on_strangers_within_sets():
    rows = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = np.sort((rows @ rows.T)[np.triu_indices(200, 1)])
    sets, seen = [people_of(rows), people_of(rows, "pack", named=False)], [rows, rows]
    threshold, strangers = same_people.freeze(sets, seen, 1e-3)
    assert threshold.comparisons == 19900 and threshold.false_matches == (scores >= threshold.value).sum() <= 19
    assert (scores >= threshold.value - 2e-4).sum() > threshold.false_matches and "factor of two" in threshold.words
    assert list(strangers) == ["set"] and strangers["set"][0].similarity == pytest.approx(scores[-1])
    strict, _ = same_people.freeze(sets, seen, 1e-9)
    assert strict.false_matches == 0 and scores[-1] < strict.value < scores[-1] + 2e-4
    assert strict.fmr == 3 / 19900 and "rule of three" in strict.words
    with pytest.raises(UserError, match="no threshold can be frozen"):
        same_people.freeze(sets[1:], seen[1:], 1e-3)


def test_a_placeholder_is_no_common_picture(caplog):
    first, second = people_of(np.zeros((30, 1)), "a"), people_of(np.zeros((30, 1)), "b")
    for many, expected in ((2, 4), (30, 0)):
        for one in (first, second):
            one.hashes[:many] = ["same"] * many
        assert len(same_people._equal_pictures(first, second)) == expected
        assert ("1 equal pictures are those of more than 10 identities" in caplog.text) == (many == 30)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_mated_pairs_connect_the_pictures_of_a_person(graph):
    count, edges = graph
    label = list(range(count))
    for a, b in edges * count:
        label[a] = label[b] = min(label[a], label[b])
    ends = np.array(edges, np.int64).reshape(-1, 2)
    got = pair_sources._connected(count, ends[:, 0], ends[:, 1])
    np.testing.assert_array_equal(got, np.unique(label, return_inverse=True)[1])
