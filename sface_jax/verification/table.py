"""The table of all networks on all benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging
from etils import epath

from sface_jax.core import files
from sface_jax.core.errors import UserError

Documents = Mapping[str, Mapping[str, Any]]
"""network -> what `verification/<network>.json` holds."""

Tables = Mapping[str, list[list[str]]]
"""what is told -> the heads of the columns, then the cells of each row."""

DEALT = "dealt anew"
MISSED = 5e-3  # a FAR of the test folds that is no longer about 1e-3
_MARKS = {
    "†": "† The pairs were dealt anew into folds, for in the order of the file mated ones lie together: published "
    "evaluators, which keep that order, tell other figures.",
    "‡": f"‡ The threshold that the other folds gave accepts more than {100 * MISSED:g} % of the non-mated pairs.",
}

FIGURES = {
    "accuracy": "accuracy in %, mean ± standard deviation over folds",
    "tar_at_far_1e-3": "TAR at FAR 1e-3 in %",
    "tar_at_far_1e-4": "templates: TAR at FAR 1e-4 in %",
}


def headline(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a result by which networks are compared; those of each flip mode, where several were measured."""
    return {key: result[key] for key in ("std", "far", "order", "flips", *FIGURES) if key in result}


def gather(folder: epath.Path, documents: Documents) -> dict[str, dict[str, Any]]:
    """Adds what earlier runs left in the folder, as far as it may stand beside what this run measured.

    That is: of a network of this run, other benchmarks, where network, mirror images and crop are the same still; of
    other networks, what was measured on the same pictures and pairs in the same folds, cropped and weighed alike.

    Args:
        folder: `verification` of a work directory.
        documents: of this run.
    """
    measured = {of: _terms(result, document) for document in documents.values() for of, result in _results(document)}
    found = {name: dict(document) for name, document in documents.items()}
    for path in sorted(folder.glob("*.json")):
        earlier = _ours(path)
        if earlier is None:
            continue
        now = documents.get(path.stem)
        if now and any(now[key] != earlier.get(key) for key in ("fingerprint", "flip", "crop")):
            continue
        fitting = {
            of: result
            for of, result in _results(earlier)
            if measured.get(of, _terms(result, earlier)) == _terms(result, earlier)
        }
        if now:
            found[path.stem]["benchmarks"] = fitting | now["benchmarks"]
        elif fitting:
            found[path.stem] = {**earlier, "benchmarks": fitting}
    return found


def _ours(path: epath.Path) -> dict[str, Any] | None:
    """A document of an earlier run; nothing where the file is another's."""
    try:
        document = files.read_json(path)
        list(_results(document))
        return document if {"protocols", "fingerprint", "flip", "crop"} <= document.keys() else None
    except (UserError, AttributeError, KeyError, TypeError):
        logging.warning("%s is not what this stage wrote: it is left out of the table", path)
        return None


def _results(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return iter(document["benchmarks"].items())


def _terms(result: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be equal for two results on a benchmark to be compared."""
    own = tuple(result.get(key) for key in ("sha256", "folds", "order", "norm_weighting", "detector_weighting"))
    return (*own, document["crop"])


def tables(documents: Documents) -> Tables:
    """The tables of those `FIGURES` that some benchmark has, the best mean first in each.

    A row has the cells of a network, or of one of its flip modes: each benchmark's, and the mean over all of them where
    there are several, for networks that have them all.
    """
    return {words: cells for figure, words in FIGURES.items() if (cells := _rows(documents, figure))}


def lines(of: Tables) -> list[str]:
    """The tables as a log shows them."""
    found = []
    for words, cells in of.items():
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        found.append(words)
        found += ["  ".join(c.ljust(width) for c, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return found + notes(of)


def notes(of: Tables) -> list[str]:
    """What marks in the cells mean, of those that occur."""
    cells = [cell for rows in of.values() for row in rows for cell in row]
    return [told for mark, told in _MARKS.items() if any(mark in cell for cell in cells)]


def markdown(of: Tables) -> str:
    """The tables ready for a page of documentation."""
    parts = []
    for words, cells in of.items():
        head, *rest = (f"| {' | '.join(map(_escaped, row))} |" for row in cells)
        parts += [f"{words[0].upper()}{words[1:]}:", "", head, "|---" * len(cells[0]) + "|", *rest, ""]
    return "\n".join([*parts, *notes(of), ""])


def _rows(documents: Documents, figure: str) -> list[list[str]]:
    having = {
        name: {of: result for of, result in document["benchmarks"].items() if figure in result}
        for name, document in documents.items()
    }
    benchmarks = list(dict.fromkeys(of for results in having.values() for of in results))
    if not benchmarks:
        return []
    several = len(benchmarks) > 1
    found = []
    for name, results in having.items():
        for flip in next(iter(results.values()), {}).get("flips", [""]) if results else []:
            of_flip = {of: result["flips"][flip] if flip else result for of, result in results.items()}
            cells = [_cell(of_flip[of], figure) if of in of_flip else "" for of in benchmarks]
            mean = sum(result[figure] for result in of_flip.values()) / len(benchmarks)
            whole = len(of_flip) == len(benchmarks)
            cells += [f"{100 * mean:.2f}" if whole else ""] if several else []
            found.append((whole, mean, [f"{name} {flip}".strip(), *cells]))
    found.sort(key=lambda item: item[:2], reverse=True)
    return [["network", *benchmarks, *(["mean"] if several else [])], *(row for *_, row in found)]


def _escaped(cell: str) -> str:
    return cell.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")


def _cell(result: Mapping[str, Any], figure: str) -> str:
    spread = f" ± {100 * result['std']:.2f}" if figure == "accuracy" else ""
    dealt = " †" if result.get("order") == DEALT else ""
    missed = " ‡" if figure == "tar_at_far_1e-3" and result.get("far", 0) > MISSED else ""
    return f"{100 * result[figure]:.2f}{spread}{dealt}{missed}"
