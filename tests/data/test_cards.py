"""The card's sections: one is replaced, all else stays as it is."""

import hashlib
import json
import subprocess

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
    (tmp_path / "a").write_bytes(b"shard")
    shards = {"a": hashlib.sha256(b"shard").hexdigest()}
    for manifest, expected in (
        ({"complete": False, "shards": shards}, None),
        ({"complete": True}, None),
        ({"complete": True, "shards": {**shards, "b": "1"}}, None),
        ({"complete": True, "shards": {"a": "1"}}, None),
        ({"complete": True, "shards": shards}, cards.digest(shards)),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert cards.digest_of(tmp_path) == expected
    (tmp_path / "a").write_bytes(b"other")
    assert cards.digest_of(tmp_path) is None


def test_a_manifest_states_a_digest():
    assert cards.stated({"sha256": "1", "shards": {"a": "2"}}) == "1"
    assert cards.stated({"sha256": {"a": "1"}}) == cards.digest({"a": "1"})
    assert cards.stated({}) is None


def test_a_card_is_handed_on():
    text = "![Some](preview.png)\n\nSee `manifest.json`.\n\n## How to read it\n\nOld.\n\n## Privacy\n\nNone.\n"
    told = cards.handed_on(text, {"preview.png": "x.preview.png", "manifest.json": "x.manifest.json"}, "New.")
    assert told == text.replace("(", "(x.").replace("`m", "`x.m").replace("Old.", "New.")
    assert cards.handed_on(text, {"preview.png": None}, "New.").startswith("See `manifest.json`.\n\n## How")
    assert cards.handed_on(CARD, {"preview.png": None}, "New.") == CARD


def test_a_folder_has_one_digest(tmp_path):
    for name in ("b/1.png", "a/10.png", "a/2 2.png", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    told = subprocess.check_output("LC_ALL=C sha256sum */* | sha256sum", shell=True, cwd=tmp_path, text=True)
    assert cards.sha256_of_folder(tmp_path) == told.split()[0]
