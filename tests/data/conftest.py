import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import prepare
from sface_jax.core import pictures
from sface_jax.data import dataset, records
from sface_jax.data.example import Example

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def write_dataset():
    """Writes `counts[label]` pictures of every class with the tensorflow-free writer and opens the result."""

    def write(directory, counts, size=8, shards=2, names=None):
        labels = np.repeat(np.arange(len(counts)), counts)
        images = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3)).astype(np.uint8)
        names = names or [f"person {label}" for label in range(len(counts))]
        for shard in range(shards):
            part = np.array_split(np.arange(len(labels)), shards)[shard]
            examples = (
                Example(pictures.encode_png(images[i]), int(labels[i]), f"{names[labels[i]]}/{i}") for i in part
            )
            records.write_shard(directory, "train", shard, shards, examples)
        records.finish(directory, image_size=size, class_names=names, splits={"train": shards})
        return dataset.open(directory), images, labels

    return write


@pytest.fixture
def face_folder(tmp_path):
    """Makes `<tmp>/faces/<identity>/<number>.<suffix>` with random pictures and gives its path."""

    def make(identities=6, pictures_each=4, suffix="png", size=(12, 10), mode="RGB"):
        rng = np.random.default_rng(0)
        for identity in range(1, identities + 1):
            folder = tmp_path / "faces" / f"s{identity}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, pictures_each + 1):
                shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
                image = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
                image.save(folder / f"{number}.{suffix}")
        return tmp_path / "faces"

    return make


@pytest.fixture
def prepare_config():
    """The config of stage prepare with a few keys changed."""

    def make(**changes):
        config = prepare.get_config()
        config.update({"source": "procedural", "image_size": 32, "identities": 6, "pictures_per_identity": 4})
        config.update({"heldout_identities": 2.0, "matcher_identities": 0.0, "pairs_per_fold": 2, "workers": 1})
        config.update(changes)
        return config

    return make


@pytest.fixture
def run_python():
    """Runs a program in a fresh interpreter and gives what it printed."""

    def run(program, *arguments, package=True, tensorflow=True):
        head = "" if tensorflow else "import sys\nsys.modules['tensorflow'] = None\n"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if package:
            environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-c", head + program, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
