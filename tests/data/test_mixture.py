import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict

from sface_jax.core.errors import UserError
from sface_jax.data import mixture

NAMES = [f"synthetic-{i:06d}" for i in range(4)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory, write_dataset):
    """Two datasets of 3 and 4 classes, and one of larger pictures: their folders and first splits."""
    folder = tmp_path_factory.mktemp("sets")
    write_dataset(folder / "a", [3, 5, 2])
    write_dataset(folder / "b", [2, 2, 4, 1], names=NAMES)
    write_dataset(folder / "others", [2, 2], names=["p", "q"])
    write_dataset(folder / "large", [2, 2], size=12)
    return folder


def config(folder, **changes):
    keys = {"dataset": str(folder / "a"), "split": "train", "classes": 0, "pictures_per_class": 0, "extra_datasets": ()}
    return ConfigDict(keys | {"extra_labels": "same"} | changes)


def test_the_first_pictures_of_each_class(sets):
    whole, part = (mixture.training_set(config(sets, pictures_per_class=count)) for count in (0, 3))
    np.testing.assert_array_equal(part.labels, [0, 0, 0, 1, 1, 1, 2, 2])
    kept = [0, 1, 2, 3, 4, 5, 8, 9]
    np.testing.assert_array_equal(part.images([7, 0, 3]), whole.images(np.array(kept)[[7, 0, 3]]))
    before = part.nbytes
    np.testing.assert_array_equal(part.decode_all(), whole.images(kept))
    assert before == part.decode_all().nbytes and part.num_classes == 3 and part.class_names == whole.class_names
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.images([1, 6]), part.images([1, 6]))


def test_the_first_identities(sets):
    whole, part = (mixture.training_set(config(sets, classes=count)) for count in (0, 2))
    assert part.class_names == whole.class_names[:2] and part.num_classes == 2
    np.testing.assert_array_equal(part.labels, whole.labels[whole.labels < 2])
    np.testing.assert_array_equal(part.decode_all(), whole.decode_all()[whole.labels < 2])
    both = mixture.training_set(config(sets, classes=2, pictures_per_class=3))
    np.testing.assert_array_equal(both.labels, [0, 0, 0, 1, 1, 1])


def test_labels_of_two_datasets_are_the_same_or_apart(sets):
    extra = (str(sets / "b"),)
    first, second = mixture.training_set(config(sets)), mixture.training_set(config(sets, dataset=extra[0]))
    same = mixture.training_set(config(sets, extra_datasets=extra))
    np.testing.assert_array_equal(same.labels, [*first.labels, *second.labels])
    assert same.class_names == NAMES and same.num_classes == 4 and len(same) == 19
    apart = mixture.training_set(config(sets, extra_datasets=extra, extra_labels="apart", pictures_per_class=1))
    np.testing.assert_array_equal(apart.labels, [0, 1, 2, *(second.labels + 3)])
    assert apart.class_names == [*first.class_names, *NAMES] and apart.labels.dtype == np.int32
    order = [18, 0, 10, 9, 3]
    expected = np.concatenate([first.decode_all(), second.decode_all()])
    np.testing.assert_array_equal(same.images(order), expected[order])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(same)).images(order), expected[order])
    np.testing.assert_array_equal(same.decode_all(), expected)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"classes": 4}, "classes=4, but .* has 3: set a smaller number"),
        ({"pictures_per_class": 6}, "pictures_per_class=6, but no identity of .* has more than 5"),
        ({"extra_datasets": ("large",)}, "pictures of 8 and 12 pixels cannot be mixed"),
        ({"extra_datasets": ("others",)}, "'p' have one label .*extra_labels=apart"),
        ({"extra_datasets": ("nowhere",)}, "set --config.extra_datasets"),
        ({"extra_datasets": ("b",), "extra_labels": "equal"}, '"same" or "apart"'),
    ],
)
def test_what_does_not_suit_is_told_in_one_line(sets, changes, line):
    if "extra_datasets" in changes:
        changes = changes | {"extra_datasets": tuple(str(sets / name) for name in changes["extra_datasets"])}
    with pytest.raises(UserError, match=line) as told:
        mixture.training_set(config(sets, **changes))
    assert "\n" not in str(told.value)
