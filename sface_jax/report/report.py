"""The report stage: everything the other stages left, as one page to read and one JSON file to compute with."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.report import inline, leakage, model_card, page, paper, training, utility, verdict, words
from sface_jax.report.findings import Findings, gather

AUDIT = "audit.json"
PACKAGES = ("sface_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Writes `{workdir}/report/index.html` and `summary.json`, and the card of each recogniser of the run.

    What a stage that did not run would have told is left out, with a line that says so. Equal work directories give
    equal bytes.

    Args:
        config: `title` (optional headline), `show_authentic` (optional, default False: authentic pictures are shown
            only if they are procedural).
        workdir: the work directory of the other stages.

    Returns:
        The paths written and the page's size in bytes.

    Raises:
        UserError: nothing in `workdir` to report on, or a damaged JSON file.
    """
    workdir = epath.Path(workdir)
    findings = gather(workdir, show_authentic=config.get("show_authentic", False))
    if not (findings.stages or findings.verification or findings.audit or findings.synthetic or findings.authentic):
        raise UserError(f"nothing to report on in {workdir}: run a stage with this --workdir first")
    made = render(findings, title=config.get("title") or "")
    for name, card in _cards(findings, workdir).items():
        files.write_text(workdir / "recognition" / name / "README.md", card)
    folder = workdir / "report"
    files.write_json(folder / "summary.json", summarise(findings))
    files.write_text(folder / "index.html", made)
    return {"page": "report/index.html", "summary": "report/summary.json", "bytes": len(made.encode())}


def render(findings: Findings, title: str = "") -> str:
    """The page: self-contained HTML that reads without scripts."""
    benchmarks = utility.benchmarks(findings.verification, findings.on_authentic)
    leak = leakage.leakage(findings.audit, findings.audit_page)
    seconds = [stage["seconds"] for stage in findings.stages.values() if words.finite(stage["seconds"])]
    return page.template("template.html").render(
        title=title or verdict.title(benchmarks, leak),
        summary=verdict.summary(findings, benchmarks),
        answers=[answer for answer in (verdict.useful(benchmarks), verdict.private(leak)) if answer],
        findings=findings,
        procedural=findings.procedural,
        splits=_splits(findings),
        size=findings.counts.get("image_size") or findings.recipe.get("image_size"),
        preview=inline.picture(findings.preview) if findings.preview else None,
        authentic_preview=inline.picture(findings.authentic_preview) if findings.authentic_preview else None,
        samples=_samples(findings),
        benchmarks=benchmarks,
        leakage=leak,
        tones=leakage.TONES,
        matcher_accuracy=_matcher_accuracy(benchmarks, leak),
        limits=verdict.limits(leak) if leak else [],
        not_claimed=verdict.not_claimed(findings),
        gan_curves=training.gan_curves(findings.gan_log),
        collapse=training.collapse(findings.gan_log),
        kept=training.kept(findings.gan_best),
        recognition_curves=training.recognition_curves(findings.recognition_logs),
        stage_words=words.STAGES,
        longest=max(seconds, default=1) or 1,
        total=sum(seconds),
        commands=_commands(findings),
        configs=json.dumps(findings.configs, indent=1),
        versions=_versions(),
        glossary=words.GLOSSARY,
        missing=_missing(findings),
        words=words,
        paper=paper,
    )


def _cards(findings: Findings, workdir: epath.Path) -> dict[str, str]:
    """The model cards of the recognisers that this run trained."""
    outputs = [str(config.get("output")) for config in findings.configs.values() if config.get("stage") == "privacy"]
    folders = [
        folder for output in outputs if (workdir / (folder := output.replace("{workdir}/", "")) / AUDIT).exists()
    ]
    audits = {folder: files.read_json(workdir / folder / AUDIT) for folder in folders}
    made = {}
    for key, stage in findings.stages.items():
        if stage["kind"] == "recognition" and stage["state"] == "finished":
            config = findings.configs[key]
            name = config["name"]
            network = files.read_json(workdir / "recognition" / name / "network.json")
            verified = findings.verification.get(name, {})
            made[name] = model_card.write(name, network, config, stage["result"], verified, audits)
    return made


def summarise(findings: Findings) -> dict[str, Any]:
    """The figures of the run as plain JSON; what is no number becomes null."""
    kept = ("accuracy", "std", "tar_at_far_1e-3")
    verification: dict[str, dict[str, Any]] = {}
    for network, content in findings.verification.items():
        for benchmark, values in content.get("benchmarks", {}).items():
            verification.setdefault(benchmark, {})[network] = {key: values.get(key) for key in kept}
    teachers = {config.get("teacher", "").rpartition("/")[2] for config in findings.configs.values()} - {""}
    for networks in verification.values():
        if len(teachers) == 1 and (teacher := networks.get(*teachers)):
            networks.setdefault("teacher", teacher)  # the same network under the name of what it does
    privacy = {key: value for key, value in findings.audit.items() if key not in ("score_sets", "other_matchers")}
    if privacy.get("screening"):
        privacy["screening"] = _without_pictures(privacy["screening"])
    if "relations" in privacy:
        privacy["relations"] = {
            name: {key: value for key, value in values.items() if key != "det"}
            for name, values in privacy["relations"].items()
        }
    return _jsonable(
        {
            "authentic": {key: value for key, value in findings.authentic.items() if key != "sha256"}
            | findings.result("prepare"),
            "gan": findings.result("gan"),
            "synthetic": findings.recipe | findings.result("synthesize"),
            "verification": verification,
            "privacy": privacy,
            "wall_seconds": {key: stage["seconds"] for key, stage in findings.stages.items()},
        }
    )


def _without_pictures(screening: dict[str, Any]) -> dict[str, Any]:
    """The figures of a screening without the pictures it flagged."""
    bare = {key: value for key, value in screening.items() if key != "suspicious"}
    return {key: _without_pictures(value) if key == "copies" and value else value for key, value in bare.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _splits(findings: Findings) -> list[tuple[str, Any, Any]]:
    """(name, identities, pictures) of each part of the authentic dataset, then of the synthetic one."""
    rows = [
        (words.SPLITS.get(name, f"authentic, {name}"), split.get("identities"), split.get("pictures"))
        for name, split in findings.counts.get("splits", {}).items()
    ]
    if findings.recipe:
        rows.append(("synthetic", findings.recipe.get("classes"), findings.recipe.get("pictures")))
    return rows


def _matcher_accuracy(benchmarks: list[utility.Benchmark], leak: leakage.Leakage | None) -> float | None:
    network = benchmarks[0].find(leak.matcher) if benchmarks and leak else None
    return network.accuracy if network else None


def _samples(findings: Findings) -> list[tuple[int, inline.Picture]]:
    """The generator's first, middle and last grids."""
    every = findings.samples
    chosen = sorted({0, len(every) // 2, len(every) - 1}) if every else []
    drawn = [(every[i][0], inline.picture(every[i][1], limit=200_000)) for i in chosen]
    return [(step, picture) for step, picture in drawn if picture]


def _missing(findings: Findings) -> list[str]:
    """The kinds of stages that left nothing to show."""
    there = {
        "prepare": findings.authentic,
        "gan": findings.gan_log or findings.samples,
        "synthesize": findings.synthetic or findings.preview,
        "recognition": findings.recognition_logs,
        "verify": findings.verification,
        "privacy": findings.audit,
    }
    return [kind for kind, found in there.items() if not found]


def _commands(findings: Findings) -> list[str]:
    """Command lines that run the same stages: the quickstart for a procedural pipeline, else one a kind of stage."""
    kinds = list(dict.fromkeys(stage["kind"] for stage in findings.stages.values()))
    if findings.procedural and {"gan", "synthesize", "recognition"} <= set(kinds):
        configs = ["quickstart.py"]
    else:
        configs = []
        for key, stage in findings.stages.items():
            named = stage["kind"] == "recognition" and key not in ("classification", "distillation", "combined")
            configs.append(f"classification.py --config.name={key}" if named else f"{key}.py")
        configs = list(dict.fromkeys(configs))
    return [f"python -m sface_jax.main --workdir=DIR --config=configs/{name}" for name in configs]


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
