"""The table of all networks on all benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from sface_jax.core import files

Documents = Mapping[str, Mapping[str, Any]]
"""network -> what `verification/<network>.json` holds."""

FIGURES = {
    "accuracy": "accuracy in %, mean ± standard deviation over folds",
    "tar_at_far_1e-3": "TAR at FAR 1e-3 in %",
    "tar_at_far_1e-4": "templates: TAR at FAR 1e-4 in %",
}


def headline(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a result by which networks are compared; those of each flip mode, where several were measured."""
    return {key: result[key] for key in ("std", "flips", *FIGURES) if key in result}


def gather(folder: epath.Path, documents: Documents) -> dict[str, Mapping[str, Any]]:
    """Adds what earlier runs left in the folder, as far as it was measured on the same files of pairs.

    Args:
        folder: `verification` of a work directory.
        documents: of this run.
    """
    same = {(name, result["file_sha256"]) for of in documents.values() for name, result in of["benchmarks"].items()}
    found = dict(documents)
    for path in sorted(folder.glob("*.json")):
        earlier = files.read_json(path)
        benchmarks = {
            name: result
            for name, result in earlier.get("benchmarks", {}).items()
            if (name, result.get("file_sha256")) in same
        }
        if path.stem not in found and benchmarks:
            found[path.stem] = {**earlier, "benchmarks": benchmarks}
    return found


def rows(documents: Documents, figure: str = "accuracy") -> list[list[str]]:
    """Networks by benchmarks, the best mean first.

    Args:
        documents: see `Documents`.
        figure: one of `FIGURES`.

    Returns:
        The heads of the columns, then the cells of each row; the mean over all benchmarks, where there are several, for
        networks that have them all. Nothing where no benchmark has this figure.
    """
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


def lines(documents: Documents, figure: str = "accuracy") -> list[str]:
    """The table as a log shows it; see `rows`."""
    cells = rows(documents, figure)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [FIGURES[figure], *text] if cells else []


def markdown(documents: Documents) -> str:
    """The tables of all `FIGURES`, ready for a page of documentation."""
    parts = []
    for figure, words in FIGURES.items():
        cells = rows(documents, figure)
        if cells:
            head, *rest = (f"| {' | '.join(row)} |" for row in cells)
            parts += [f"{words[0].upper()}{words[1:]}:", "", head, "|---" * len(cells[0]) + "|", *rest, ""]
    return "\n".join(parts)


def _cell(result: Mapping[str, Any], figure: str) -> str:
    spread = f" ± {100 * result['std']:.2f}" if figure == "accuracy" else ""
    return f"{100 * result[figure]:.2f}{spread}"
