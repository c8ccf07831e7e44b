"""The card of a dataset that is handed on: a README.md, one section of which is written by an audit.

Beside it lie a manifest, for programs, and a preview, which the card shows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from absl import logging
from etils import epath

from sface_jax.core import files

FILE = "README.md"
MANIFEST = "manifest.json"
PREVIEW = "preview.png"
READING = "How to read it"
PRIVACY = "Privacy"
"""The section that an audit writes."""


def digest(shards: Mapping[str, str]) -> str:
    """The SHA-256 that a dataset is known by, from those of its shards by name."""
    return hashlib.sha256(json.dumps(dict(sorted(shards.items()))).encode()).hexdigest()


def sha256(path: files.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    made = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            made.update(part)
    return made.hexdigest()


def sha256_of_folder(folder: files.PathLike) -> str:
    """One for all <identity>/<picture> in a folder: what `LC_ALL=C sha256sum */* | sha256sum` says there."""
    made, folder = hashlib.sha256(), epath.Path(folder)
    for name in sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*")):
        made.update(f"{sha256(folder / name)}  {name}\n".encode())
    return made.hexdigest()


def stated(manifest: Mapping[str, Any]) -> str | None:
    """The digest that the manifest of a dataset or an export gives its files; None where it gives none."""
    told = manifest.get("sha256")
    return digest(told) if isinstance(told, dict) else told


def digest_of(folder: files.PathLike) -> str | None:
    """The digest of the dataset with a card in this folder; reads all its shards.

    None where there is no such dataset, it is not complete, or its shards are not those of its manifest.
    """
    folder = epath.Path(folder)
    if not ((folder / FILE).exists() and (folder / MANIFEST).exists()):
        return None
    manifest = files.read_json(folder / MANIFEST)
    shards = manifest.get("shards")
    if not (manifest.get("complete") and shards):
        return None
    for name, expected in shards.items():
        if not (folder / name).exists() or sha256(folder / name) != expected:
            logging.warning("%s is not what %s says of it, so its digest is not known", folder / name, MANIFEST)
            return None
    return digest(shards)


def handed_on(text: str, renamed: Mapping[str, str | None], reading: str) -> str:
    """The card of a dataset for another format of it.

    Args:
        text: the card.
        renamed: the names of files that it mentions, and what they are called now; None where they are no more,
            which takes a picture out of the card.
        reading: how the format is read, in place of section "How to read it"; a card without one is another's, and
            is left as it is.
    """
    if not section(text, READING):
        return text
    for old, new in renamed.items():
        text = text.replace(old, new) if new else re.sub(rf"!\[[^]\n]*\]\({re.escape(old)}\)\n*", "", text)
    return with_section(text, READING, reading)


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
