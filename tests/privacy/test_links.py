"""Links of pictures and people, against all comparisons written out."""

import numpy as np
import pytest

from sface_jax.privacy.attacks import links
from sface_jax.privacy.relations import Faces
from tests.privacy.crowd import people, unit


def written_out(pictures, *galleries):
    """Scores [n, people] of each gallery."""
    best = []
    for gallery in galleries:
        cosines = pictures.astype(np.float64) @ gallery.embeddings.astype(np.float64).T
        best.append(np.stack([cosines[:, gallery.labels == p].max(1) for p in np.unique(gallery.labels)], axis=1))
    every, result, start = np.concatenate(best, axis=1), [], 0
    for cosines in best:
        scores = np.empty_like(cosines)
        for person in range(cosines.shape[1]):
            others = -np.sort(-np.delete(every, start + person, axis=1), axis=1)[:, : links.COHORT]
            scores[:, person] = cosines[:, person] - links.SHARE * others.mean(1)
        start += cosines.shape[1]
        result.append(scores)
    return result


@pytest.fixture(scope="module")
def crowd():
    members, heldout = people(40, 3), people(15, 2, first=100)
    kept = np.random.default_rng(0).permutation(len(members))[:100]  # uneven numbers, in no order
    pictures = unit(np.random.default_rng(1).standard_normal((70, 32)))
    return pictures, Faces(members.embeddings[kept], members.labels[kept]), heldout


def test_links_are_those_of_all_comparisons(crowd):
    pictures, members, heldout = crowd
    near = links.nearest_people(pictures, members), links.nearest_people(pictures, heldout)
    for gallery, found, expected in zip((members, heldout), links.links(*near), written_out(*crowd), strict=True):
        assert len(found.scores) == len(pictures) * (links.COHORT + 1) and (np.diff(found.scores) <= 0).all()
        column = np.searchsorted(np.unique(gallery.labels), found.people)
        np.testing.assert_allclose(found.scores, expected[found.pictures, column], atol=2e-6)
        np.testing.assert_allclose(
            found.cosines, (pictures[found.pictures] * gallery.embeddings[found.rows]).sum(1), atol=1e-6
        )
        np.testing.assert_array_equal(gallery.labels[found.rows], found.people)


def test_nobody_is_linked_with_themselves_nor_with_who_is_not_there(crowd):
    _, members, _ = crowd
    (found,) = links.links(links.nearest_people(members.embeddings, members), own=members.labels)
    assert (found.people != members.labels[found.pictures]).all()
    few = people(2, 2)
    near = links.nearest_people(few.embeddings, few)
    assert (near.people[:, 2:] == -1).all() and np.isneginf(near.cosines[:, 2:]).all()
    (found,) = links.links(near)
    assert len(found.scores) == 4 * 2 and np.isfinite(found.scores).all()
    (found,) = links.links(links.nearest_people(few.embeddings, Faces(few.embeddings[:2], few.labels[:2])))
    assert not len(found.scores)  # nobody else to measure likeness against
