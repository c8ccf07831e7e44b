import html.parser
import re

import numpy as np
import pytest

from sface_jax.data import preview, validate

MANIFEST = {
    "source": "faces <b>",
    "format": "folders",
    "licence": "",
    "procedural": False,
    "seed": 3,
    "conversion": {"image_size": 32, "align": "mtcnn(threshold=0.9)", "encoding": "png"},
    "counts": {
        "splits": {"train": {"identities": 3, "pictures": 1204}, "heldout": {"identities": 2, "pictures": 40}},
        "image_size": 32,
    },
    "pictures": {
        "in_source": 1300,
        "unreadable": 3,
        "failures_to_acquire": 13,
        "duplicates_dropped": 0,
        "of_identities_with_too_few": 40,
        "bytes_kept": 0,
        "encoded_anew": 1244,
    },
    "identities": {"in_source": 7, "left_out": 2},
}


class Page(html.parser.HTMLParser):
    """The text of a page, and the elements that load something."""

    def __init__(self, text):
        super().__init__()
        self.words, self.open, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.sources += [named[name] for name in ("src", "href", "srcset") if name in named]
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)
            self.words.append(" ")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture
def validation():
    finding = {"count": 0, "pictures": 0, "examples": []}
    findings = {kind: {"title": t, "meaning": m, **finding} for kind, (t, m) in validate.KINDS.items()}
    findings["alike"] |= {"count": 2, "pictures": 4}
    histogram = {"1": 1, "2": 2, "5": 1, "7": 2, "300": 1}
    return {"findings": findings, "pictures": 1284, "pictures_per_identity": histogram, "not_fully_compared": 0}


@pytest.fixture
def write(tmp_path, validation):
    def made(manifest=MANIFEST, rows=(), examples=()):
        path = tmp_path / "preview.html"
        preview.write(path, title="Faces", manifest=manifest, validation=validation, rows=rows, examples=examples)
        assert [found.name for found in tmp_path.iterdir()] == ["preview.html"]
        page = Page(path.read_text())
        assert not page.open  # every element is closed
        assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
        return page

    return made


def test_it_tells_what_there_is_what_was_left_out_and_what_is_doubtful(write):
    text = write().text
    for words in (
        "1,244 pictures of 5 identities, 32 × 32 pixels. They may show real people",
        "Source faces <b> Format folders Licence none was stated",
        "Alignment by mtcnn(threshold=0.9), to the five-point template",
        "Identities left out 2 of 7",
        "Failures to acquire 1.0 %",
        "Left out: no face was found (failure to acquire, FTA) 13 1.0 %",
        "Left out: of an identity with too few pictures 40 3.1 %",
        "Doubtful labels 2 Photographs that were found under more than one identity.",
        "1 1 2 2 4 to 7 3 256 to 511 1",
    ):
        assert words in text, words


def test_pictures_are_in_the_page_with_their_names_and_large_groups_are_cut(write):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    large = np.zeros((400, 300, 3), np.uint8)
    page = write(
        rows=[("Ann_Lee", images[:4]), ("Bo", images[4:6])],
        examples=[
            ("Near duplicates", "They are alike.", [("Ann_Lee/1.jpg", images[0]), ("Bo/2.jpg", images[1])]),
            ("Near duplicates", "They are alike.", [("Ann_Lee/3.jpg", images[2]), ("Bo/4.jpg", large)]),
            ("Repeated", "The same.", [(f"Bo/{number}.jpg", image) for number, image in enumerate(images)]),
        ],
    )
    assert len(page.sources) == 6 + 4 + 6
    assert page.text.count("They are alike.") == 1
    assert all(words in page.text for words in ("Ann_Lee/1.jpg", "Bo/5.jpg and 14 more"))


def test_drawn_faces_and_sparse_manifests_do(write):
    text = write(manifest={**MANIFEST, "procedural": True}).text
    assert "A program drew them: they show no person." in text and "came out alike by chance" in text
    sparse = {"procedural": False, "counts": MANIFEST["counts"]}
    text = write(manifest=sparse).text
    assert "Failures to acquire" not in text and "what became" not in text
