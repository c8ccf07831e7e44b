"""Who stands for chance: as many pictures each, and nobody twice."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.privacy.attacks import strangers
from sface_jax.privacy.relations import Faces
from tests.privacy.crowd import people

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(first=SIZES, second=SIZES)
def test_both_sides_have_as_many_pictures(first, second):
    rng = np.random.default_rng(0)
    labels = [rng.permutation(np.repeat(np.arange(len(sizes)), sizes)) for sizes in (first, second)]
    kept = [
        np.bincount(mine[strangers._as_many(mine, np.sort(theirs), rng)], minlength=len(own))
        for mine, own, theirs in zip(labels, (first, second), (second, first), strict=True)
    ]
    assert all(((sizes >= 1) & (sizes <= own)).all() for sizes, own in zip(kept, (first, second), strict=True))
    if len(first) == len(second):
        np.testing.assert_array_equal(np.sort(kept[0]), np.sort(kept[1]))
        np.testing.assert_array_equal(np.sort(kept[0]), np.minimum(np.sort(first), np.sort(second)))


def test_strangers_stay_and_people_under_two_labels_are_found():
    dropped = 0
    for first in range(0, 1000, 50):
        both = people(50, 4, first=first)
        held = both.labels % 2 == 1
        found = strangers.galleries(*(Faces(both.embeddings[rows], both.labels[rows]) for rows in (~held, held)))
        dropped += found.same
        assert not found.drawn and len(found.heldout) == 100 - 4 * found.same
    assert dropped <= 2
