"""What the stages left in a work directory, gathered; what is not there stays empty."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
from etils import epath

from sface_jax.core import files

Log = dict[str, tuple[np.ndarray, np.ndarray]]  # scalar's name -> (steps [n], values [n])


@dataclasses.dataclass(frozen=True)
class Findings:
    """One work directory.

    Attributes:
        configs: stage key -> its resolved config, the work directory's own path written as "{workdir}".
        stages: stage key -> {"kind", "state", "seconds", "result"}, in the order they ran; the report itself left out.
        authentic: manifest of the authentic dataset.
        synthetic: manifest of the synthetic dataset.
        verification: network -> what `verification/<network>.json` holds.
        audit: what `privacy/audit.json` holds.
        audit_page: the audit's own page, seen from the report's folder; "" where there is none.
        gan_log: the generator's logged scalars.
        gan_best: what `gan/best.json` holds: "step", "metric", "value" of the best checkpoint.
        recognition_logs: network -> its logged scalars.
        samples: pictures the generator drew while it learned, (step, file), in order.
        preview: grid of the synthetic dataset; rows are identities.
        authentic_preview: grid of authentic pictures of the same identities, if they may be shown.
    """

    configs: dict[str, dict[str, Any]]
    stages: dict[str, dict[str, Any]]
    authentic: dict[str, Any]
    synthetic: dict[str, Any]
    verification: dict[str, dict[str, Any]]
    audit: dict[str, Any]
    audit_page: str
    gan_log: Log
    gan_best: dict[str, Any]
    recognition_logs: dict[str, Log]
    samples: list[tuple[int, epath.Path]]
    preview: epath.Path | None
    authentic_preview: epath.Path | None

    @property
    def procedural(self) -> bool:
        """Whether the authentic pictures show no person."""
        return self.authentic.get("procedural") is True

    @property
    def counts(self) -> dict[str, Any]:
        """Sizes of the authentic dataset: `splits`, `image_size`, `skipped`."""
        return self.authentic.get("counts", {})

    @property
    def recipe(self) -> dict[str, Any]:
        """What fixes the synthetic pictures: `classes`, `per_class`, `pictures`, `psi`, `seed`, ..."""
        return self.synthetic.get("recipe", {})

    @property
    def on_authentic(self) -> set[str]:
        """The networks of this run that were trained on the authentic dataset."""
        return {
            name
            for name, config in self.configs.items()
            if config.get("stage") == "recognition" and str(config.get("dataset")).endswith("/authentic")
        }

    def result(self, kind: str) -> dict[str, Any]:
        """The result of the (last) stage of a kind, empty if none finished."""
        results = [stage["result"] for stage in self.stages.values() if stage["kind"] == kind]
        return results[-1] if results else {}


def gather(workdir: epath.Path, show_authentic: bool = False) -> Findings:
    """Reads a work directory.

    Authentic pictures are gathered only if their manifest calls them procedural (no person in them), or if
    `show_authentic` asks for them.

    Raises:
        UserError: one of the JSON files is damaged.
    """
    configs = _hide(_json(workdir / "config.json"), str(workdir))
    authentic = _hide(_json(workdir / "authentic" / "manifest.json"), str(workdir))
    may_show = show_authentic or authentic.get("procedural") is True
    return Findings(
        configs={key: config for key, config in configs.items() if config.get("stage") != "report"},
        stages=_stages(_hide(_json(workdir / "stages.json"), str(workdir)), configs),
        authentic=authentic,
        synthetic=_hide(_json(workdir / "synthetic" / "manifest.json"), str(workdir)),
        verification={path.stem: _json(path) for path in _sorted(workdir / "verification", "*.json")},
        audit=_json(workdir / "privacy" / "audit.json"),
        audit_page="../privacy/index.html" if (workdir / "privacy" / "index.html").exists() else "",
        gan_log=_log(workdir / "gan" / "metrics.jsonl"),
        gan_best=_json(workdir / "gan" / "best.json"),
        recognition_logs={path.parent.name: _log(path) for path in _sorted(workdir / "recognition", "*/metrics.jsonl")},
        samples=_samples(workdir / "gan" / "samples"),
        preview=_present(workdir / "synthetic" / "preview.png"),
        authentic_preview=_present(workdir / "authentic" / "preview.png") if may_show else None,
    )


def _json(path: epath.Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}


def _present(path: epath.Path) -> epath.Path | None:
    return path if path.exists() else None


def _sorted(folder: epath.Path, pattern: str) -> list[epath.Path]:
    return sorted(folder.glob(pattern)) if folder.exists() else []


def _hide(value: Any, workdir: str) -> Any:
    """Writes "{workdir}" for the work directory's path, so that a report can be handed on and compared."""
    if isinstance(value, str):
        return value.replace(workdir, "{workdir}")
    if isinstance(value, dict):
        return {key: _hide(item, workdir) for key, item in value.items()}
    if isinstance(value, list):
        return [_hide(item, workdir) for item in value]
    return value


def _stages(stages: dict[str, Any], configs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    known = {}
    for key, stage in stages.items():
        kind = configs.get(key, {}).get("stage", key)
        if kind != "report":
            known[key] = {
                "kind": kind,
                "state": stage.get("state", ""),
                "seconds": stage.get("wall_seconds"),
                "result": stage.get("result") or {},
            }
    return known


def _log(path: epath.Path) -> Log:
    """Reads a `metrics.jsonl`; a line cut short and a scalar that is null are passed over."""
    values: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and "step" in record:
                values.setdefault(name, []).append((record["step"], value))
    return {name: tuple(np.array(pairs, np.float64).T) for name, pairs in values.items()}


def _samples(folder: epath.Path) -> list[tuple[int, epath.Path]]:
    """The generator's pictures by step. Files whose name hints at authentic pictures are never taken."""
    numbered = []
    for path in _sorted(folder, "*.png"):
        number = re.search(r"(\d+)$", path.stem)
        if number and not re.search("real|authentic", path.stem):
            numbered.append((int(number[1]), path))
    return sorted(numbered, key=lambda pair: pair[0])
