import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sface_jax.core.errors import UserError
from sface_jax.data import pipeline


@pytest.fixture(scope="module")
def split(tmp_path_factory, write_dataset):
    return write_dataset(tmp_path_factory.mktemp("set"), [5, 7, 9])[0]["train"]


def take(split, count, **options):
    batches = list(itertools.islice(pipeline.batches(split, **options), count))
    return np.stack([b["image"] for b in batches]), np.stack([b["label"] for b in batches])


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**40),
    per_process=st.integers(1, 7),
    processes=st.sampled_from([1, 2, 4]),
    start=st.integers(0, 9),
)
def test_order_is_the_same_for_any_process_count_and_start(split, seed, per_process, processes, start):
    batch_size = 4 * per_process
    images, labels = take(split, 12, batch_size=batch_size, seed=seed)
    shares = [
        take(split, 12 - start, batch_size=batch_size, seed=seed, start_step=start, process_index=p,
             process_count=processes)
        for p in range(processes)
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([s[0] for s in shares], axis=1), images[start:])
    np.testing.assert_array_equal(np.concatenate([s[1] for s in shares], axis=1), labels[start:])


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), batch_size=st.integers(1, 40))
def test_every_epoch_has_every_picture_once_in_another_order(split, seed, batch_size):
    n = len(split)
    images, _ = take(split, -(-3 * n // batch_size), batch_size=batch_size, seed=seed)
    epochs = images.reshape(-1, 8 * 8 * 3)[: 3 * n].reshape(3, n, -1)
    everything = sorted(map(bytes, split.decode_all()))
    assert all(sorted(map(bytes, epoch)) == everything for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_unshuffled_batches_follow_the_records_and_labels_start_at_zero(split):
    images, labels = take(split, 3, batch_size=7, seed=0, shuffle=False)
    np.testing.assert_array_equal(images.reshape(21, 8, 8, 3), split.decode_all())
    np.testing.assert_array_equal(labels.reshape(-1), split.labels - split.labels.min())
    assert labels.dtype == np.int32


@pytest.mark.parametrize("encoded_limit", [0, 2**20])
def test_decoding_on_the_way_gives_the_same_batches(split, encoded_limit):
    options = {"batch_size": 6, "seed": 1, "process_index": 1, "process_count": 2}
    expected = take(split, 9, **options)
    found = take(split, 9, memory_limit=0, encoded_limit=encoded_limit, **options)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_the_index_says_where_a_picture_is(split):
    for batch in itertools.islice(pipeline.batches(split, batch_size=6, seed=3), 5):
        assert batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"], split.decode_all()[batch["index"]])
        np.testing.assert_array_equal(batch["label"], split.labels[batch["index"]] - split.labels.min())


def noise(picture, rng):
    """A change that shows which draws it was given."""
    return picture ^ rng.integers(0, 256, picture.shape).astype(np.uint8)


def test_changes_depend_on_seed_and_place_in_the_stream_alone(split):
    options = {"seed": 5, "augment": noise}
    images, _ = take(split, 12, batch_size=8, **options)  # 96 pictures: each of the 21 comes up again and again
    one_by_one, _ = take(split, 96, batch_size=1, **options)
    np.testing.assert_array_equal(one_by_one[:, 0], images.reshape(96, 8, 8, 3))
    assert len(set(map(bytes, images.reshape(96, -1)))) == 96
    for p in range(2):
        share, _ = take(split, 5, batch_size=8, start_step=7, process_index=p, process_count=2, **options)
        np.testing.assert_array_equal(share, images[7:, 4 * p : 4 * p + 4])
    assert (take(split, 1, batch_size=8, seed=6, augment=noise)[0] != images[0]).any()


def test_refuses_a_batch_that_does_not_divide(split):
    with pytest.raises(UserError, match="batch_size=6 does not divide among 4"):
        pipeline.batches(split, batch_size=6, seed=0, process_count=4)
