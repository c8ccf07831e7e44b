"""Programs compiled ahead of time, for devices at hand or not: whether they fit there, and what they cost."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from sface_jax.core import chips, costs, files
from sface_jax.core import mesh as meshes
from sface_jax.core.errors import UserError

GIB, MIB = 2**30, 2**20

_WANTED = re.compile(r"\(?([\d.]+)([KMGT])\)? (?:exceeds available HBM|of) \(?([\d.]+)([KMGT])\)?")
_UNITS = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}


class Program(NamedTuple):
    """One of a stage's programs.

    Attributes:
        lower: gives the program, lowered for its devices.
        counted: floating-point operations for a picture, counted by hand or from the definition; 0 where nobody did.
        batch: the batch it is lowered for, over all devices.
    """

    lower: Callable[[], jax.stages.Lowered]
    counted: float
    batch: int


def mesh(topology: str, model: int = 1) -> Mesh:
    """A mesh of all chips of a TPU slice that need not be at hand, or of the devices that are.

    Args:
        topology: as libtpu names it, such as "v5e:4x4"; "" is the devices at hand.
        model: devices along the second axis.

    Raises:
        UserError: there is no compiler for it, or the axis does not divide the devices.
    """
    if not topology:
        return meshes.make_mesh(model=model)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # the compiler may be missing, or not know the name; its errors have no common kind
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"no compiler for {topology!r} ({reason}): install '.[tpu]', or set --config.topology"
        ) from error
    if len(devices) % model:
        raise UserError(f"config.mesh.model={model} does not divide the {len(devices)} chips of {topology}")
    return Mesh(np.array(devices).reshape(-1, model), meshes.ALL, axis_types=(AxisType.Auto,) * 2)


def chosen(programs: Mapping[str, Program], names: tuple[str, ...]) -> dict[str, Program]:
    """The programs of these names, or all where none is named.

    Raises:
        UserError: there is no program of a name.
    """
    for name in names:
        if name not in programs:
            raise UserError(f"config.programs names {name!r}: choose from {', '.join(programs)}")
    return {name: programs[name] for name in names or programs}


def tell(
    config: ConfigDict,
    workdir: epath.Path,
    mesh: Mesh,
    programs: Mapping[str, Program],
    smaller: str = "batch_per_device",
    **facts: Any,
) -> dict[str, Any]:
    """Compiles programs, logs a table of their costs, and writes `compile/<name>.json`.

    A program that does not fit ends nothing: its row says so, and what to change.

    Args:
        config: of the stage, with `name`, `topology` and `programs`, those that are wanted (see `chosen`).
        workdir: gets the file.
        mesh: the devices.
        programs: by name.
        smaller: the config key that makes programs smaller, for the line that says so.
        **facts: what else the file is to hold.

    Returns:
        What the file holds: the facts, "devices", "device_kind", and "programs": name -> see `row`.

    Raises:
        UserError: there is no program of a name.
    """
    kind, path = mesh.devices.flat[0].device_kind, workdir / "compile" / f"{config.name.removeprefix('compile_')}.json"
    told = {"topology": config.topology, "devices": mesh.size, "device_kind": kind, **facts, "programs": {}}
    logging.info("%s on %s x %s: %s", config.name, mesh.size, kind, ", ".join(f"{k} {v}" for k, v in facts.items()))
    columns = ("program", "compile", "counted", "compiled", "ratio", "memory", "traffic", "sent", "least", "estimate")
    logging.info("  %-14s %8s %8s %8s %6s %8s %8s %8s %9s %9s", *columns)
    logging.info(
        "  %-14s %8s %17s %6s %8s %8s %8s %9s %9s", "", "s", "GFLOP a picture", "", *("GiB", "GB", "MB"), "ms", "ms"
    )
    for name, program in chosen(programs, tuple(config.programs)).items():
        told["programs"][name] = row(program, mesh, smaller)
        _show(name, told["programs"][name])
        files.write_json(path, told)
    return told


def row(program: Program, mesh: Mesh, smaller: str) -> dict[str, Any]:
    """Compiles a program and tells what one of its devices needs for it.

    Args:
        program: see `Program`.
        mesh: the devices.
        smaller: the config key that makes it smaller.

    Returns:
        "fits" and "compile_seconds"; where it does not fit, "needs_gib" and "has_gib", as far as the compiler tells
        them, and "change", what to do. Else all of `costs.of`, by the same names; "counted_gflop_per_picture",
        "compiled_gflop_per_picture" and their "ratio"; and, of chips that are known, "seconds" (see `costs.seconds`)
        and "bound", the side that makes the least of them.
    """
    device = mesh.devices.flat[0]
    chip, began = chips.of(device.device_kind), time.perf_counter()
    change = f"lower {smaller}, or take a larger slice"
    with tempfile.TemporaryDirectory() as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if device.platform == "tpu" else None
        try:
            made = program.lower().compile(compiler_options=dump)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            seconds = time.perf_counter() - began
            return {"fits": False, "compile_seconds": seconds, "change": change, **_wanted(str(error))}
        seconds, text = time.perf_counter() - began, _text(made, Path(folder))
    cost = costs.of(made, text)
    told: dict[str, Any] = {"fits": True, "compile_seconds": seconds, **cost}
    if chip and told["memory"] > chip.memory_gib * GIB:  # not every compiler refuses
        told |= {"fits": False, "change": change, "needs_gib": told["memory"] / GIB, "has_gib": float(chip.memory_gib)}
    told["batch"], pictures = program.batch, program.batch / mesh.size
    told["counted_gflop_per_picture"] = program.counted / 1e9
    told["compiled_gflop_per_picture"] = told["flops"] / pictures / 1e9
    told["ratio"] = told["flops"] / pictures / program.counted if program.counted else None
    if chip:
        times = costs.seconds(cost, chip)
        told |= {"seconds": times, "bound": max(("compute", "memory", "collectives"), key=times.get)}
    return told


def refusal(name: str, row: dict[str, Any]) -> str:
    """The line that says that a program does not fit, and what to do."""
    needs, has = row.get("needs_gib"), row.get("has_gib")
    figures = f" (needs {needs:.2f} of {has:.2f} GiB)" if needs and has else ""
    return f"{name} DOES NOT FIT the memory of a chip{figures}: {row['change']}"


def _text(made: Any, folder: Path) -> str:
    """A program as its compiler leaves it; where JAX cannot read that of a newer compiler, as that dumped it itself."""
    try:
        return made.as_text()
    except jax.errors.JaxRuntimeError:
        dumped = next(folder.glob("*.jit_*after_codegen.txt"), None)
        if dumped is None:
            raise
        return dumped.read_text()


def _wanted(error: str) -> dict[str, float]:
    """What a compiler that refuses a program says of its needs."""
    found = _WANTED.search(error)
    if not found:
        return {}
    needs, unit, has, of = found.groups()
    return {"needs_gib": float(needs) * _UNITS[unit], "has_gib": float(has) * _UNITS[of]}


def _show(name: str, row: dict[str, Any]) -> None:
    if not row["fits"]:
        logging.info("  %s", refusal(name, row))
        return
    seconds, ratio = row.get("seconds", {}), row["ratio"]
    times = [f"{1000 * seconds[key]:.3f}" if key in seconds else "" for key in ("least", "estimated")]
    logging.info(
        "  %-14s %8.1f %8.2f %8.2f %6s %8.2f %8.2f %8.2f %9s %9s  %s",
        *(name, row["compile_seconds"], row["counted_gflop_per_picture"], row["compiled_gflop_per_picture"]),
        *(f"{ratio:.3f}" if ratio else "", row["memory"] / GIB, row["traffic"] / 1e9, row["wire"] / 1e6, *times),
        row.get("bound", ""),
    )
    for kind, of in row["kinds"].items():
        logging.info(
            "    %s x %s: %.2f MB sent, the largest gives %s", of["count"], kind, of["wire"] / 1e6, of["largest"]
        )
    if row["unknown_loops"]:
        logging.info("    %s loops of unknown length are counted once", int(row["unknown_loops"]))
