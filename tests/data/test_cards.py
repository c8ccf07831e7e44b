"""The card's sections: one is replaced, all else stays as it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sface_jax.data import cards

CARD = "# Faces\n\nText.\n\n## Privacy\n\nNo figure.\nNone.\n\n## Licence\n\nTo be set.\n"
bodies = st.text(st.characters(exclude_characters="#\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", exclude_categories=["Cs"]))


@given(bodies.map(str.strip), bodies.map(str.strip))
def test_one_section_is_replaced_as_often_as_one_likes(first, second):
    once = cards.with_section(CARD, "Privacy", first)
    assert cards.section(once, "Privacy") == first
    assert cards.with_section(once, "Privacy", first) == once
    twice = cards.with_section(once, "Privacy", second)
    assert cards.section(twice, "Privacy") == second
    assert twice.startswith("# Faces\n\nText.\n\n## Privacy\n\n") and twice.endswith("\n## Licence\n\nTo be set.\n")
    assert cards.with_section(twice, "Privacy", "No figure.\nNone.") == CARD
    assert cards.with_section(CARD, "Licence", "MIT") == CARD.replace("To be set.", "MIT")


def test_a_card_without_the_section_is_told():
    assert cards.section(CARD, "Limits") == ""
    with pytest.raises(ValueError, match="no section Limits"):
        cards.with_section(CARD, "Limits", "")


def test_a_dataset_is_known_by_its_shards(tmp_path):
    assert cards.digest({"a": "1", "b": "2"}) == cards.digest({"b": "2", "a": "1"}) != cards.digest({"a": "1"})
    assert cards.digest_of(tmp_path) is None
    (tmp_path / "README.md").write_text(CARD)
    for manifest, expected in [({"complete": False}, None), ({"complete": True, "shards": {"a": "1"}}, {"a": "1"})]:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert cards.digest_of(tmp_path) == (expected and cards.digest(expected))
