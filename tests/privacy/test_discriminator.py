"""What a discriminator learned by heart is found, with labels on no side or on both; what it did not is not."""

import numpy as np
import pytest

from sface_jax.privacy.attacks import discriminator
from sface_jax.privacy.attacks.discriminator import Pictures

CLASSES = 30


def pictures(seed: int, identities: int, each: int, first: int = 0) -> Pictures:
    """Pictures whose first pixels name their identity, whose others are noise."""
    rng = np.random.default_rng(seed)
    labels = first + np.repeat(np.arange(identities), each)
    images = rng.integers(0, 256, (len(labels), 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = labels
    images[:, 0, 0, 1] = seed
    return Pictures(images, labels)


def learned(by_heart: float, person: float, classes: int = CLASSES) -> discriminator.Logits:
    """A discriminator that knows pictures of seed 1 by heart, and the first people as persons, both to a degree."""

    def logits(images):
        keys = images.reshape(len(images), -1).astype(np.uint64) @ (np.uint64(257) ** np.arange(12, dtype=np.uint64))
        x = np.stack([np.random.default_rng(int(key)).standard_normal(classes) for key in keys]).astype(np.float32)
        label = images[:, 0, 0, 0].astype(int)
        rows = np.flatnonzero(label < classes)
        x[rows, label[rows]] += person + by_heart * (images[rows, 0, 0, 1] == 1)
        return x

    return logits


MEMBERS, HELDOUT, UNSEEN = pictures(1, CLASSES, 8), pictures(2, 20, 8, first=CLASSES), pictures(3, CLASSES, 4)


def test_pictures_learned_by_heart_are_told_from_persons():
    found = discriminator.discriminator(learned(1.0, 0.0), MEMBERS, HELDOUT, UNSEEN, own_labels=True, batch_size=37)
    assert found["identity"]["interval"][0] > 0.5 and found["identity"]["auc"] > 0.8
    assert found["identity"]["auc"] > found["attacks"]["highest"]["identity"]["auc"]
    assert found["memorised"]["interval"][0] > 0.5
    assert found["recognised"]["members"] > 2 * found["recognised"]["unseen"]
    assert found["recognised"]["chance"] == 1 / CLASSES and found["tried"] == 5
    persons = discriminator.discriminator(learned(0.0, 1.0), MEMBERS, HELDOUT, UNSEEN, own_labels=True)
    assert persons["identity"]["auc"] > 0.8
    low, high = persons["memorised"]["interval"]
    assert low < 0.5 < high


def test_nothing_learned_is_chance_however_many_pictures_each_side_has():
    areas = []
    for seed in range(10, 40, 2):
        few, many = pictures(seed, CLASSES, 3), pictures(seed + 1, 20, 9, first=CLASSES)
        found = discriminator.discriminator(learned(0.0, 0.0), few, many)
        areas.append(found["identity"]["auc"])
        assert found["memorised"] == {} and found["recognised"] == {}
    assert abs(np.mean(areas) - 0.5) < 0.06


def test_results_do_not_depend_on_the_batch_and_indices_choose():
    by_one, by_all = (
        discriminator.discriminator(learned(0.5, 0.2), MEMBERS, HELDOUT, own_labels=True, batch_size=size)
        for size in (7, 1000)
    )
    assert by_one["identity"]["auc"] == by_all["identity"]["auc"]
    assert by_one["recognised"] == by_all["recognised"]
    rows = np.arange(0, len(MEMBERS.labels), 2)
    some = Pictures(MEMBERS.images, MEMBERS.labels[rows], rows)
    cut = Pictures(MEMBERS.images[rows], MEMBERS.labels[rows])
    first, second = (discriminator.discriminator(learned(1.0, 0.0), side, HELDOUT) for side in (some, cut))
    assert first["picture"] == second["picture"]


def test_a_discriminator_without_labels_has_one_score():
    found = discriminator.discriminator(lambda images: images[:, 0, :1, 0].astype(np.float32), MEMBERS, HELDOUT)
    assert found["tried"] == 1 and found["primary"] == {"identity": "highest", "picture": "highest"}
    assert found["identity"]["auc"] == 0  # held-out people have the higher numbers


def test_labels_of_another_dataset_are_refused_and_one_person_is_no_side():
    with pytest.raises(ValueError, match="are not those of a discriminator"):
        discriminator.discriminator(learned(0, 0, classes=5), MEMBERS, HELDOUT, own_labels=True)
    alone = pictures(4, 1, 8, first=CLASSES)
    assert discriminator.discriminator(learned(0, 0), MEMBERS, alone) == {}
