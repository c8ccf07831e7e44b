"""Copies are found as they are, edited lightly and mirrored; strangers' pictures are not."""

import numpy as np

from sface_jax.core import pictures
from sface_jax.privacy.attacks import copies
from sface_jax.privacy.relations import Faces
from tests.privacy.crowd import people
from tests.verification import tiny


class Held:
    def __init__(self, images):
        self.kept = images

    def __len__(self):
        return len(self.kept)

    def images(self, indices):
        return self.kept[indices]


def look(images):
    hashes = np.array([hash(image.tobytes()) & (2**63 - 1) for image in images], np.uint64)
    return copies.look(Held(images), np.arange(len(images)), hashes)


def test_copies_are_found_with_their_origins():
    authentic = tiny.render(np.arange(40), np.zeros(40, int))
    synthetic = tiny.render(np.arange(100, 130), np.zeros(30, int))
    synthetic[3] = synthetic[7] = authentic[11]
    synthetic[5] = pictures.decode(pictures.encode_jpeg(authentic[12], 60))
    synthetic[9] = (authentic[13] * 0.9).astype(np.uint8)[:, ::-1]
    found = copies.find(look(synthetic), look(np.concatenate([authentic, authentic[:1]])))
    assert dict(zip(found.pictures.tolist(), found.origins.tolist(), strict=True)) == {3: 11, 7: 11, 5: 12, 9: 13}
    assert found.equal.tolist() == [True, True, False, False] and found.counts() == {"equal": 2, "alike": 2}
    assert found.mirrored[found.pictures == 9].all() and not found.mirrored[found.pictures != 9].any()
    none = copies.find(look(synthetic), look(tiny.render(np.arange(200, 210), np.zeros(10, int))))
    told = copies.figures(found, none, scale=4.0, listed=1)
    assert told["members"] == {"equal": 2, "alike": 2} and told["heldout"]["expected_among_members"] == 0
    assert told["suspicious"] == [{"picture": 3, "member": 11, "similarity": 1.0, "mirrored": False, "equal": True}]


def test_equal_embeddings_are_copies():
    authentic, synthetic = people(40, 3), people(30, 2, first=100)
    embeddings = synthetic.embeddings.copy()
    embeddings[[4, 9]] = authentic.embeddings[[7, 60]]
    found = copies.find_equal(Faces(embeddings, synthetic.labels), authentic)
    assert found.pictures.tolist() == [4, 9] and found.origins.tolist() == [7, 60]
    assert found.counts() == {"equal": 2, "alike": 0} and not len(copies.find_equal(synthetic, authentic).pictures)
