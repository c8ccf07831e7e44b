"""Templates of pages that read without scripts and without other files."""

from __future__ import annotations

from importlib import resources

import jinja2

from sface_jax.report import words

_FILTERS = (words.percent, words.decimal, words.count, words.ratio, words.duration, words.one_in, words.interval)


def template(name: str) -> jinja2.Template:
    """A template of this package; the words' formats are filters in it.

    Args:
        name: of a file beside this one. It may include others, such as `head.html`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (resources.files("sface_jax.report") / name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {shown.__name__: shown for shown in _FILTERS}
    return environment.get_template(name)
