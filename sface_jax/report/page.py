"""Templates of pages that read without scripts and without other files."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

from sface_jax.report import words

_FILTERS = (words.percent, words.decimal, words.count, words.ratio, words.duration, words.one_in, words.interval)


def template(name: str) -> jinja2.Template:
    """A template of this package; `style` in it is the style that all pages share, and the words' formats are filters.

    Args:
        name: of a file beside this one.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {shown.__name__: shown for shown in _FILTERS}
    environment.globals["style"] = Markup(_read("style.css"))
    return environment.from_string(_read(name))


def _read(name: str) -> str:
    return (resources.files("sface_jax.report") / name).read_text("utf-8")
