import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sface_jax.core import significance


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p_values):
    before = np.array(p_values)
    after = significance.holm(before)
    assert (after >= before).all() and (after <= 1).all() and after.min() <= len(before) * before.min()
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= 0).all()
