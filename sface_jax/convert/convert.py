"""Stage `convert`: networks from PyTorch as folders of ours, and ours in formats that others read."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sface_jax.convert import array_files, export, folders, generator, recognizers
from sface_jax.core import files
from sface_jax.core.errors import UserError
from sface_jax.recognition import network as networks
from sface_jax.recognition.network import Network

TOLERANCE = 1e-4  # of an exported network's embeddings, as a share of the largest number in ours
PICTURES = 3  # to compare them on

CARD = "README.md"  # of a recogniser, as stage report writes it

_KINDS = ("generator", "recogniser")


def run(config: ConfigDict, workdir: epath.Path) -> dict[str, Any]:
    """Converts what `config.source` is into what `config.output` names; see `configs/convert.py` for the keys.

    Returns:
        What was converted; of an exported recogniser, how far its embeddings are from ours.

    Raises:
        UserError: the source holds no network known here, or the output is there already, of the wrong kind, or wrong.
    """
    if jax.process_count() > 1:
        raise UserError("a conversion is the work of one process: run it alone")
    source = epath.Path(config.source)
    if not config.source or not source.exists():
        raise UserError(f"there is no network {config.source!r}: set --config.source to a file or a folder of ours")
    kind = kind_of(source)
    default = workdir / "gan" if kind == "generator" else workdir / "recognition" / source.stem
    output = epath.Path(config.output or default)
    if output.exists():
        raise UserError(f"{output} is there already: choose another --config.output")
    if kind == "generator":
        return generator.convert(source, output, config)
    if output.suffix in export.SUFFIXES:
        made = to_file(_open(source, config), output)
        if source.is_dir() and (card := source / CARD).exists():
            files.write_text(output.with_name(f"{output.stem}.{CARD}"), card.read_text())
        return made
    if source.is_dir():
        known = ", ".join(export.SUFFIXES)
        raise UserError(f"{source} is a folder of ours, which becomes a file: set --config.output=FILE in {known}")
    if config.output and output.suffix:
        known = ", ".join(export.SUFFIXES)
        raise UserError(f"{output} is in no format known here: take one of {known}, or a folder without a dot")
    return to_folder(_open(source, config), output)


def kind_of(source: epath.Path) -> str:
    """Tells whether a file or folder holds a "generator" or a "recogniser".

    Raises:
        UserError: it holds neither.
    """
    if source.is_dir():
        facts = files.read_json(source / "network.json") if (source / "network.json").exists() else {}
        for kind, entry in zip(_KINDS, ("generator", "architecture"), strict=True):
            if entry in facts:
                return kind
        raise UserError(f"{source} holds neither a generator nor a recogniser: name a folder that a stage wrote")
    if source.suffix == ".pkl":
        return "generator"
    if source.suffix in array_files.SUFFIXES:
        return _KINDS[not any(_of_a_generator(name) for name in array_files.arrays(source))]
    if source.suffix in recognizers.SUFFIXES:
        return "recogniser"
    if source.suffix in export.SUFFIXES:
        raise UserError(f"{source} is an exported program: convert the folder or the state dict that it was made of")
    known = ", ".join((".pkl", *recognizers.SUFFIXES))
    raise UserError(f"{source} cannot be converted: take a folder of ours or a file in {known}")


def _of_a_generator(name: str) -> bool:
    return name.partition("/")[0] in array_files.NETWORKS or name.startswith(("synthesis.", "mapping."))


def _open(source: epath.Path, config: ConfigDict) -> Network:
    """The recogniser, with what the config tells of its preprocessing."""
    network = recognizers.open_network(str(source), "source")
    told = {key: config[key] for key in ("mean", "std", "channel_order") if config[key]}
    if config.channel_order not in ("", "rgb", "bgr"):
        raise UserError(f'config.channel_order is {config.channel_order!r}: choose "rgb" or "bgr"')
    if any(len(told.get(key, (0,) * 3)) != 3 for key in ("mean", "std")):
        raise UserError("config.mean and config.std have a number for each channel: give three, or none")
    return dataclasses.replace(network, preprocessing=dataclasses.replace(network.preprocessing, **told))


def to_folder(network: Network, output: epath.Path) -> dict[str, Any]:
    """Writes a recogniser as a folder that `recognition.network.load` reads; it appears whole or not at all."""
    with folders.appearing(output) as folder:
        networks.save(folder, network)
    logging.info("%s: in %s", _words(network), output)
    return _facts(network)


def to_file(network: Network, output: epath.Path) -> dict[str, Any]:
    """Exports a recogniser, reads the file again, and compares its embeddings of random pictures with ours.

    Returns:
        What was written, and "difference": the largest one of an embedding's numbers, as a share of the largest number.
        None where the format's runtime is not installed.

    Raises:
        UserError: the difference is above `TOLERANCE`, and nothing is kept; or see `export.export`.
    """
    written = [output] if output.suffix == ".onnx" else [output, recognizers.description(output)]
    for path in written:
        if path.exists():
            raise UserError(f"{path} is there already: choose another --config.output")
    try:
        # Other devices multiply in less than float32, unless told otherwise.
        with jax.default_device(_cpu()):
            export.export(network, output)
            difference = _difference(network, output)
        if difference is not None and not difference <= TOLERANCE:
            raise UserError(
                f"the embeddings of {output} would differ from the network's by {difference:.1e}, more than "
                f"{TOLERANCE:.0e}: nothing is kept, please report it"
            )
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    checked = "" if difference is None else f"; read again, its embeddings differ by {difference:.1e}"
    logging.info("%s: in %s%s", _words(network), output, checked)
    return _facts(network) | {"difference": difference}


def _cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError("an exported file is checked on the CPU: add cpu to JAX_PLATFORMS, or unset it") from error


def _difference(network: Network, path: epath.Path) -> float | None:
    network = export.in_float32(network)
    size = network.preprocessing.size
    pictures = np.random.default_rng(0).integers(0, 256, (PICTURES, size, size, 3), np.uint8)
    images = np.asarray(network.preprocessing(pictures))
    try:
        theirs = export.embed(path, images)
    except ImportError:
        logging.warning("onnxruntime is not installed, so %s was not compared with the network", path)
        return None
    ours = np.asarray(jax.jit(lambda v, x: network.module.apply(v, x, train=False))(network.variables, images))
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


def _words(network: Network) -> str:
    module = network.module
    return f"{type(module).__name__}, {network.preprocessing.size} pixels to {module.embedding_size} numbers"


def _facts(network: Network) -> dict[str, Any]:
    module = network.module
    return {
        "network": type(module).__name__,
        "image_size": network.preprocessing.size,
        "embedding_size": module.embedding_size,
    }
