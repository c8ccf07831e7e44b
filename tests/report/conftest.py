"""A work directory as the stages leave it, with made-up but plausible figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from etils import epath

from sface_jax.core import files, pictures

NOT_DETECTED = "not detected by these attacks at this power"
NETWORK = {
    "architecture": {"kind": "iresnet", "blocks": [1, 1, 1], "widths": [8, 8, 16], "embedding_size": 16},
    "preprocessing": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "rgb", "alignment": "arcface"},
}
NETWORKS = {"authentic": 0.958, "classification": 0.842, "distillation": 0.893, "combined": 0.911}


def _faces(rows: int, columns: int, size: int = 64, blur: float = 0.0) -> np.ndarray:
    """A grid of ovals with eyes; the faces of a row share their colours."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    sheet = np.empty((rows, columns, size, size, 3), np.uint8)
    for r in range(rows):
        skin, hair, ground = rng.uniform(90, 230, 3) * [1, 0.8, 0.65], rng.uniform(10, 120, 3), rng.uniform(80, 220, 3)
        wide = rng.uniform(0.24, 0.34)
        for c in range(columns):
            dx, dy = rng.normal(0, 0.02, 2)
            face = ((x - dx) / wide) ** 2 + ((y - 0.05 - dy) / 0.38) ** 2 < 1
            top = ((x - dx) / (wide + 0.06)) ** 2 + ((y + 0.04 - dy) / 0.42) ** 2 < 1
            eyes = (np.abs(np.abs(x - dx) - 0.12) < 0.04) & (np.abs(y + 0.02 - dy) < 0.025)
            picture = np.where(top[..., None], hair, ground)
            picture = np.where(face[..., None], skin, picture)
            picture = np.where(eyes[..., None], 20, picture) * rng.uniform(0.75, 1.1)
            picture = picture + rng.normal(0, 6 + 60 * blur, picture.shape)
            sheet[r, c] = np.clip(picture, 0, 255)
    return sheet.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def _rates(mated: np.ndarray, non_mated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.quantile(non_mated, 1 - np.geomspace(1 / len(non_mated), 1, 160))
    fmr = np.array([(non_mated >= t).mean() for t in at])
    fnmr = np.array([(mated < t).mean() for t in at])
    return fmr, fnmr


def write_log(path: epath.Path, rng: np.random.Generator, steps: int, **ends: tuple[float, float]) -> None:
    lines = []
    for step in np.linspace(steps / 200, steps, 200).astype(int):
        fall = np.exp(-4 * step / steps)
        values = {
            k: float((last + (first - last) * fall) * rng.lognormal(0, 0.06)) for k, (first, last) in ends.items()
        }
        lines.append(json.dumps({"step": int(step), **values}))
    lines.append('{"step": 99, "lo')  # a line cut short by a kill
    files.write_text(path, "\n".join(lines))


def write_verification(workdir: epath.Path, rng: np.random.Generator) -> None:
    for network, accuracy in {**NETWORKS, "matcher": 0.95}.items():
        fmr = np.unique(np.geomspace(1 / 3000, 1, 150))
        skill = 12 * (accuracy - 0.5) ** 2
        per_fold = np.clip(rng.normal(accuracy, 0.012, 10), 0, 1)
        files.write_json(workdir / "verification" / f"{network}.json", {"network": network, "benchmarks": {"heldout": {
            "accuracy": float(per_fold.mean()), "std": float(per_fold.std()), "tar_at_far_1e-3": float(skill / 4),
            "folds": 10, "pairs": 6000, "per_fold": per_fold.tolist(), "thresholds": [0.3] * 10,
            "roc": {"fmr": fmr.tolist(), "tmr": (fmr ** (1 / (1 + skill * 8))).tolist()},
        }}})  # fmt: skip


def write_audit(workdir: epath.Path, rng: np.random.Generator) -> None:
    draws = {
        "authentic_authentic": (rng.normal(0.62, 0.12, 4000), rng.normal(0.05, 0.13, 60000)),
        "synthetic_synthetic": (rng.normal(0.52, 0.15, 4000), rng.normal(0.07, 0.14, 60000)),
        "authentic_synthetic": (rng.normal(0.34, 0.15, 4000), rng.normal(0.06, 0.13, 60000)),
    }
    edges = np.linspace(-1, 1, 101)
    audit = {"matcher": "matcher", "score_sets": {}, "relations": {}, "match_rates": {}}
    for name, (mated, non_mated) in draws.items():
        fmr, fnmr = _rates(mated, non_mated)
        audit["score_sets"][name] = {
            "count": {"mated": len(mated), "non_mated": len(non_mated)},
            "histogram": {
                "edges": edges.tolist(),
                "mated": np.histogram(mated, edges)[0].tolist(),
                "non_mated": np.histogram(non_mated, edges)[0].tolist(),
            },
        }
        audit["relations"][name] = {
            "eer": float(fmr[np.argmin(abs(fmr - fnmr))]), "fmr100": float(fnmr[fmr <= 0.01][-1]),
            "fmr1000": float(fnmr[fmr <= 0.001][-1]), "fmr10000": None, "fdr": 3.4, "auc": 0.97, "d_sys": 0.71,
            "eer_interval": [0.06, 0.09], "auc_interval": [0.95, 0.98], "fdr_interval": [3.1, 3.9],
            "d_sys_null": {"mean": 0.02, "p95": 0.03},
            "det": {"fmr": fmr.tolist(), "fnmr": fnmr.tolist()},
        }  # fmt: skip
        audit["match_rates"][name] = {}
        for rate in ("1e-2", "1e-3", "1e-4"):
            threshold = float(np.quantile(draws["authentic_authentic"][1], 1 - float(rate)))
            matched = float((mated >= threshold).mean())
            audit["match_rates"][name][rate] = {
                "threshold": threshold, "fmr": float(rate), "rate": matched, "interval": [matched * 0.8, matched],
                "ratio_to_chance": matched / float(rate),
            }  # fmt: skip
    different = {
        key: {**values, "rate": 1.3 * values["fmr"], "ratio_to_chance": 1.3}
        for key, values in audit["match_rates"][name].items()
    }
    for values in different.values():
        del values["interval"]
    audit["match_rates"]["authentic_synthetic_different"] = different
    nearest = {"members": rng.normal(0.62, 0.09, 2560), "heldout": rng.normal(0.55, 0.09, 480)}
    audit["score_sets"]["nearest_synthetic"] = {
        "histogram": {
            "edges": edges.tolist(),
            **{key: np.histogram(value, edges)[0].tolist() for key, value in nearest.items()},
        },
    }
    audit["sets"] = {
        "members": {"identities": 64, "pictures": 2560}, "synthetic": {"identities": 64, "pictures": 1280},
        "heldout": {"identities": 24, "pictures": 480},
    }  # fmt: skip
    level = {"auc": 0.71, "interval": [0.66, 0.76], "tpr_at_fpr": {"1e-1": 0.31, "1e-2": 0.06}}
    audit["membership"] = {
        "picture": level,
        "identity": {**level, "auc": 0.82, "tpr_at_fpr": {"1e-1": 0.4}},
        "power": "24 held-out identities.",
    }
    at = {"1e-3": {"found": 45, "tpr": 0.9, "interval": [0.78, 0.97]}}
    audit["controls"] = {"planted": {"kinds": {"exact": {"planted": 50, "rates": at}}}, "shuffled": {"auc": 0.503}}
    audit["verdict"] = {
        "level": "linkable",
        "summary": "The synthetic pictures can be linked to the identities they were made from, by match rate.",
        "findings": [
            {"name": "match rate", "level": "linkable", "text": "22.4 % of the pairs match, 224 times chance."},
            {"name": "membership", "level": "weakly linkable", "text": "Told apart with an AUC of 0.82."},
            {"name": "near copies", "level": NOT_DETECTED, "text": "0.1 % are near copies."},
        ],
        "caveats": ["A link that is not detected may still exist."],
        "rules": {"match rate": "Linkable where the interval is at least 10 times chance."},
    }  # fmt: skip
    files.write_json(workdir / "privacy" / "audit.json", audit)


def make_workdir(
    workdir: epath.Path, stages: tuple[str, ...] = ("gan", "recognition", "verify", "privacy")
) -> epath.Path:
    rng = np.random.default_rng(0)
    finished, configs = {}, {}

    def stage(key: str, kind: str, seconds: float, result: dict, **config) -> None:
        configs[key] = {"stage": kind, "seed": 0, **config}
        finished[key] = {"state": "finished", "wall_seconds": seconds, "result": result}

    if "gan" in stages:
        splits = {"train": {"identities": 64, "pictures": 2560}, "heldout": {"identities": 24, "pictures": 480}}
        counts = {"splits": splits, "image_size": 64, "skipped": 0, "procedural": True}
        manifest = {"source": "procedural", "procedural": True, "seed": 0, "counts": counts, "sha256": {"a": "0" * 64}}
        files.write_json(workdir / "authentic" / "manifest.json", manifest)
        pictures.write_png(workdir / "authentic" / "preview.png", _faces(6, 8))
        stage("prepare", "prepare", 21.4, counts, output=f"{workdir}/authentic")
        for step in (0, 500, 1000, 1500, 2000):
            grid = _faces(4, 6, blur=0.5 - step / 4000)
            pictures.write_png(workdir / "gan" / "samples" / f"{step:06d}.png", grid)
        write_log(
            workdir / "gan" / "metrics.jsonl",
            rng,
            2000,
            d_loss=(1.4, 0.9),
            g_loss=(0.7, 1.6),
            d_real=(0.1, 1.2),
            d_fake=(0.1, -1),
        )
        stage("gan", "gan", 251.0, {"steps": 2000}, steps=2000, batch_size=32)
        recipe = {"seed": 0, "psi": 1.0, "classes": 64, "per_class": 20, "pictures": 1280, "image_size": 64}
        files.write_json(workdir / "synthetic" / "manifest.json", {"complete": True, "recipe": recipe})
        pictures.write_png(workdir / "synthetic" / "preview.png", _faces(6, 8, blur=0.1))
        stage("synthesize", "synthesize", 14.2, {"pictures": 1280}, per_identity=20)
    if "recognition" in stages:
        for network in NETWORKS:
            folder = workdir / "recognition" / network
            scalars = {"loss": (14.0, 1.5), "classification_loss": (14.0, 1.5), "accuracy": (0.03, 0.9)}
            if network in ("distillation", "combined"):
                scalars["teacher_cosine"] = (0.1, 0.8)
            write_log(folder / "metrics.jsonl", rng, 900, **scalars)
            files.write_json(folder / "network.json", NETWORK)
            taught = {"distillation_weight": 2500.0} if "teacher_cosine" in scalars else {}
            data = "authentic" if network == "authentic" else "synthetic"
            result = {"steps": 900, "classes": 64, "pictures": 1280}
            keys = {"name": network, "dataset": f"{workdir}/{data}", "split": "train", "batch_size": 128, **taught}
            keys |= {"head": "cosface(scale=32.0)", "classification_weight": 1.0, "teacher": "x/authentic"}
            stage(network, "recognition", 61.0, result, **keys)
    if "verify" in stages:
        write_verification(workdir, rng)
        stage("verify", "verify", 12.3, {})
    if "privacy" in stages:
        write_audit(workdir, rng)
        stage("privacy", "privacy", 18.9, {}, output=f"{workdir}/privacy")
    files.write_json(workdir / "config.json", configs)
    files.write_json(workdir / "stages.json", finished)
    return workdir


@pytest.fixture
def workdir(tmp_path) -> epath.Path:
    return make_workdir(epath.Path(tmp_path))


@pytest.fixture
def make():
    """`make_workdir`, for tests that want some stages only."""
    return make_workdir
