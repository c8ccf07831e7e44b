"""Which attempt is taken depends on what the judge says of each attempt, and on nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sface_jax.core import pictures
from sface_jax.synthesis.attempts import take
from sface_jax.synthesis.rejection import Judge


class Table(Judge):
    """Looks the violation of (picture, attempt) up."""

    def __init__(self, violations):
        self.table = violations

    def look(self, images, labels):
        return images

    def violations(self, look, labels):
        rows, tries = pictures.to_uint8(look)[:, 0, 0, :2].T
        return self.table[rows, tries]


def paint(rows, tries):
    """Pictures whose red and green tell row and attempt."""
    colours = np.stack([rows, tries, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return np.broadcast_to(pictures.from_uint8(colours[:, None, None]), (len(rows), 2, 2, 3))


@settings(max_examples=60, deadline=None)
@given(
    violations=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 4)),
        elements=st.sampled_from([0.0, 0.25, 0.5, np.nan]),
    ),
    batch_size=st.integers(1, 7),
)
def test_the_first_that_passes_is_taken_else_the_nearest_whatever_the_batch(violations, batch_size):
    rows, attempts = violations.shape
    asked = []

    def draw(samples):
        assert all(len(part) == batch_size for part in samples)
        asked.extend(zip(samples.indices.tolist(), samples.attempts.tolist(), strict=True))
        return paint(samples.indices, samples.attempts)

    taken = list(take(np.zeros(rows, int), np.arange(rows), draw, batch_size, Table(violations), attempts))
    assert len(taken) == rows
    for row, (png, attempt) in enumerate(taken):
        accepted = np.flatnonzero(violations[row] == 0)
        if len(accepted):
            assert attempt == accepted[0]
            assert max(a for r, a in asked if r == row) == attempt, "an accepted picture was drawn again"
        elif np.isfinite(violations[row, 0]):
            assert attempt == -1 - np.nanargmin(violations[row])
        shown = pictures.decode(png)[0, 0]
        assert tuple(shown[:2]) == (row, attempt if attempt >= 0 else -1 - attempt)


def test_without_a_judge_everything_is_drawn_once():
    asked = []

    def draw(samples):
        asked.append(samples)
        return paint(samples.indices, samples.attempts)

    taken = list(take(np.zeros(7, int), np.arange(7), draw, 3))
    assert [one.attempt for one in taken] == [0] * 7 and len(asked) == 3
