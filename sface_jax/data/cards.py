"""The card of a dataset that is handed on: a README.md, one section of which is written by an audit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from etils import epath

from sface_jax.core import files

FILE = "README.md"
PRIVACY = "Privacy"
"""The section that an audit writes."""


def digest(shards: Mapping[str, str]) -> str:
    """The SHA-256 that a dataset is known by, from those of its shards by name."""
    return hashlib.sha256(json.dumps(dict(sorted(shards.items()))).encode()).hexdigest()


def digest_of(folder: files.PathLike) -> str | None:
    """The digest of the dataset with a card in this folder; None where there is no such dataset, or it is not whole."""
    folder = epath.Path(folder)
    if not ((folder / FILE).exists() and (folder / "manifest.json").exists()):
        return None
    manifest = files.read_json(folder / "manifest.json")
    return digest(manifest["shards"]) if manifest.get("complete") and manifest.get("shards") else None


def section(text: str, title: str) -> str:
    """What lies below the heading "## title", up to the next heading of its kind; empty where there is no such one."""
    found = _section(title).search(text)
    return found[1].strip() if found else ""


def with_section(text: str, title: str, body: str) -> str:
    """The text with `body` below the heading "## title" in place of what is there.

    Raises:
        ValueError: there is no such heading.
    """
    found = _section(title).search(text)
    if not found:
        raise ValueError(f"there is no section {title}")
    before, after = text[: found.start(1)], text[found.end(1) :]
    return before + body.strip() + ("\n\n" if after else "\n") + after


def _section(title: str) -> re.Pattern[str]:
    return re.compile(rf"^## {re.escape(title)}\n\n?(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
