import io
import json

import numpy as np
import pytest
from PIL import Image

from sface_jax.data import duplicates, validate

SIZE = 112
COUNT = 120


def picture(seed):
    """A smooth random picture with some grain, as unlike others as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)).resize((SIZE, SIZE), Image.BICUBIC)
    return (np.asarray(coarse) * 0.7 + 30 + rng.normal(0, 3, (SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)


def jpeg(image, quality=50):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def moved(image, x, y):
    return np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="edge")[8 + y : 8 + y + SIZE, 8 + x : 8 + x + SIZE]


def cut(image, margin):
    box = (margin, margin, SIZE - margin, SIZE - margin)
    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.BICUBIC, box=box))


def brightened(image, factor):
    return (image * factor).clip(0, 255).astype(np.uint8)


ALTERED = {
    "jpeg": jpeg,
    "darker": lambda image: brightened(image, 0.9),
    "brighter": lambda image: brightened(image, 1.1),
    "one pixel": lambda image: moved(image, 1, 0),
    "two pixels": lambda image: moved(image, -1, 2),
    "cut": lambda image: cut(image, 2),
    "small": lambda image: np.asarray(Image.fromarray(image).resize((80, 80), Image.LANCZOS).resize((SIZE, SIZE))),
    "all at once": lambda image: jpeg(brightened(moved(image, 1, 1), 0.9)),
}


@pytest.fixture(scope="module")
def collection():
    """Pictures of 40 identities, three each: their facts and labels."""
    images = [picture(seed) for seed in range(COUNT)]
    return images, np.stack([validate.facts(image) for image in images]), np.repeat(np.arange(40), 3)


def found(rows, labels, **options):
    return validate.find(np.concatenate(rows), np.concatenate(labels), size=SIZE, **options)


def test_facts_are_of_the_picture_and_of_what_is_shown_of_it():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    row = validate.facts(image)
    assert row.dtype == validate.FACTS and row.shape == ()
    assert (row["width"], row["height"], row["side"]) == (30, 20, 20)
    assert row["mean"] == 100 and row["spread"] == 100
    assert row["thumbnail"][:, 0].max() == 0 and row["thumbnail"][:, -1].min() == 200
    shown = validate.facts(image, image[:10, 15:25], side=10.0)
    assert (shown["width"], shown["side"], shown["mean"], shown["spread"]) == (30, 10, 200, 0)
    assert (shown["digest"] == validate.facts(image[:10, 15:25].copy())["digest"]).all()
    assert (shown["digest"] != validate.facts(image[:5, 15:25].repeat(2, axis=1))["digest"]).any()


def test_nothing_stands_out_where_nothing_is_wrong(collection):
    _, rows, labels = collection
    findings = validate.find(rows, labels, size=SIZE)
    assert list(findings.kinds) == list(validate.KINDS)
    assert all(finding.count == 0 for finding in findings.kinds.values())
    assert findings.histogram == {3: 40} and findings.crowded == 0


def test_poor_pictures_are_counted_by_kind(collection):
    images, rows, labels = collection
    dark, bright = brightened(images[0], 0.1), np.clip(images[1].astype(int) + 140, 0, 255).astype(np.uint8)
    poor = [
        validate.facts(dark),
        validate.facts(bright),
        validate.facts(np.full((SIZE, SIZE, 3), 90, np.uint8)),
        validate.facts(picture(900)[:100, :100], picture(900)),
        validate.facts(picture(901), picture(901), side=300.0),
    ]
    poor[4]["width"] = 400
    findings = found([rows, np.stack(poor)], [labels, np.array([0, 0, 0, 77, 78])])
    examples = {kind: finding.examples for kind, finding in findings.kinds.items() if finding.count}
    assert examples == {
        "dark": [(COUNT,)],
        "bright": [(COUNT + 1,)],
        "flat": [(COUNT,), (COUNT + 2,)],
        "enlarged": [(COUNT + 3,)],
        "resized": [(COUNT + 3,), (COUNT + 4,)],
        "single": [(COUNT + 3,), (COUNT + 4,)],
    }
    assert findings.histogram == {1: 2, 3: 39, 6: 1}


def test_equal_pixels_are_told_within_an_identity_and_across(collection):
    _, rows, labels = collection
    again = rows[[0, 0, 9, 12]]  # of identities 0, 3 and 4
    findings = found([rows, again], [labels, np.array([0, 0, 39, 4])])
    assert findings.kinds["repeated"].examples == [(0, COUNT, COUNT + 1), (12, COUNT + 3)]
    assert findings.kinds["repeated"].pictures == 5
    assert findings.kinds["shared"].examples == [(9, COUNT + 2)]
    assert findings.kinds["alike"].count == findings.kinds["mirrored"].count == 0


@pytest.mark.parametrize("mirror", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("how", ALTERED)
def test_altered_copies_under_another_name_are_found_and_nothing_else(collection, how, mirror, monkeypatch):
    monkeypatch.setattr(duplicates, "_FEW", 0)
    images, rows, labels = collection
    chosen = range(0, COUNT, 5)
    copies = [ALTERED[how](images[number][:, ::-1] if mirror else images[number]) for number in chosen]
    findings = found(
        [rows, np.stack([validate.facts(np.ascontiguousarray(copy)) for copy in copies])],
        [labels, np.full(len(copies), 99)],
        most=COUNT,
    )
    pairs = {(number, COUNT + place) for place, number in enumerate(chosen)}
    named = set(findings.kinds["mirrored" if mirror else "alike"].examples)
    assert named <= pairs and len(named) >= len(pairs) - 1
    assert findings.kinds["alike" if mirror else "mirrored"].count == 0
    # One photograph twice in one identity is no label's fault.
    within = found([rows, np.stack([validate.facts(copies[0])])], [labels, labels[:1]])
    assert within.kinds["alike"].count == within.kinds["mirrored"].count == 0


@pytest.mark.parametrize("few", [0, 1024], ids=["hashed", "all pairs"])
def test_near_duplicates_do_not_depend_on_the_order_and_come_most_alike_first(collection, few, monkeypatch):
    monkeypatch.setattr(duplicates, "_FEW", few)
    images, rows, labels = collection
    rows = np.concatenate([rows, [validate.facts(jpeg(images[3])), validate.facts(cut(images[60], 2))]])
    labels = np.concatenate([labels, [70, 71]])
    near = duplicates.find(rows["thumbnail"], labels)
    assert near.pairs.tolist() == [[3, COUNT], [60, COUNT + 1]]
    assert 1 >= near.similarity[0] > near.similarity[1] > duplicates.ALIKE
    order = np.random.default_rng(0).permutation(len(rows))
    again = duplicates.find(rows["thumbnail"][order], labels[order])
    assert [sorted(order[pair]) for pair in again.pairs] == near.pairs.tolist()


def test_a_crowd_is_looked_at_in_part_and_told(collection, monkeypatch):
    monkeypatch.setattr(duplicates, "_FEW", 0)
    monkeypatch.setattr(duplicates, "_CROWD", 10)
    _, rows, labels = collection
    grain = np.random.default_rng(0).integers(-2, 3, (60, 16, 16))
    crowd = (validate.facts(picture(900))["thumbnail"] + grain).clip(0, 255).astype(np.uint8)
    near = duplicates.find(np.concatenate([rows["thumbnail"], crowd]), np.concatenate([labels, 100 + np.arange(60)]))
    assert near.crowded >= 50
    assert 0 < len(near.pairs) < 60 * 59 / 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_very_small_datasets_pass(collection, count):
    images, _, _ = collection
    rows = np.array([validate.facts(images[0]), validate.facts(jpeg(images[0]))], validate.FACTS)[:count]
    findings = validate.find(rows, np.arange(count), size=SIZE)
    assert findings.pictures == count and findings.kinds["alike"].count == (count == 2)


def test_what_is_kept_of_the_findings_names_pictures_and_is_json(collection):
    images, rows, labels = collection
    findings = found([rows, np.stack([validate.facts(jpeg(images[7]))])], [labels, np.array([50])], most=1)
    kept = json.loads(json.dumps(findings.to_json([f"p/{position}.jpg" for position in range(COUNT + 1)])))
    assert (kept["pictures"], kept["identities"], kept["not_fully_compared"]) == (COUNT + 1, 41, 0)
    assert kept["pictures_per_identity"] == {"1": 1, "3": 40}
    alike = kept["findings"]["alike"]
    assert (alike["count"], alike["pictures"], alike["examples"]) == (1, 2, [["p/7.jpg", f"p/{COUNT}.jpg"]])
