"""Stage verify on a small work directory."""

import numpy as np
import pytest
from etils import epath

from configs import verify
from sface_jax.core import files, pictures
from sface_jax.core.errors import UserError
from sface_jax.verification import evaluate
from sface_jax.verification.benchmarks import open_benchmark
from sface_jax.verification.embed import fuse
from tests.verification import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp("work"))
    tiny.write_dataset(path / "authentic", {"train": 2, "heldout": 6}, each=5)
    tiny.write_pairs(path / "authentic")
    tiny.write_network(path / "recognition" / "combined")
    return path


def config(**changes):
    made = verify.get_config()
    with made.unlocked():
        made.update({"networks": ("combined",), "batch_size": 8, **changes})
    return made


def test_heldout_and_a_folder_with_an_lfw_pairs_file(workdir, tmp_path):
    for identity in range(4):
        images = tiny.render(np.full(4, identity), np.arange(4))
        for index, image in enumerate(images):
            pictures.write_png(tmp_path / "faces" / f"n{identity}" / f"n{identity}_{index + 1:04d}.png", image)
    same = [f"n{i}\t{j}\t{j + 1}" for i in range(4) for j in (1, 2, 3)][:10]
    different = [f"n{i}\t{j}\tn{(i + 1) % 4}\t{j}" for i in range(4) for j in (1, 2, 3)][:10]
    files.write_text(tmp_path / "pairs.txt", "\n".join(["10", *same, *different]) + "\n")

    benchmarks = ("heldout", f"mine={tmp_path}/pairs.txt:{tmp_path}/faces")
    table = evaluate.run(config(benchmarks=benchmarks, baselines=("pixels",)), workdir)
    assert set(table) == {"heldout", "mine"} and set(table["mine"]) == {"combined", "pixels"}
    document = files.read_json(workdir / "verification" / "combined.json")
    assert document["network"] == "combined" and document["preprocessing"]["size"] == tiny.SIZE
    for name, pairs in (("heldout", 40), ("mine", 20)):
        found = document["benchmarks"][name]
        assert (found["folds"], found["pairs"], len(found["per_fold"])) == (10, pairs, 10)
        assert found["accuracy"] == table[name]["combined"]["accuracy"] == pytest.approx(np.mean(found["per_fold"]))
        assert found["roc"]["fmr"][0] == 0 and found["roc"]["tmr"][-1] == 1


def test_embeddings_are_kept_until_something_changes(workdir, monkeypatch):
    first = evaluate.run(config(), workdir)
    calls = []
    original = evaluate.features
    monkeypatch.setattr(evaluate, "features", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    assert evaluate.run(config(), workdir) == first and not calls
    evaluate.run(config(flip=("none",)), workdir)
    assert calls


def test_ways_to_put_picture_and_mirror_image_together_are_told_by_name(workdir):
    table = evaluate.run(config(flip=("concatenate", "sum")), workdir)
    found = table["heldout"]["combined"]
    assert found["flips"]["concatenate"]["accuracy"] == found["accuracy"] and set(found["flips"]["sum"]) == {
        "accuracy",
        "std",
        "tar_at_far_1e-3",
    }
    views = np.load(workdir / "verification/embeddings/combined_heldout.npz")["features"]
    benchmark = open_benchmark("heldout", workdir, tiny.SIZE)
    for flip, of in found["flips"].items():
        assert evaluate.measure(fuse(views, flip), benchmark)["accuracy"] == of["accuracy"]
    document = files.read_json(workdir / "verification" / "combined.json")
    assert document["flip"] == "concatenate" and document["benchmarks"]["heldout"]["pictures_per_second"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ("combined", "classification")}, "there is no network classification under"),
        ({"networks": ()}, "--config.networks"),
        ({"benchmarks": ("lfw",)}, "name=pairs_file:folder"),
        ({"benchmarks": ("pairs.txt",), "root": ""}, "--config.root"),
        ({"network": "nowhere.pt"}, "there is no network nowhere.pt"),
        ({"flip": ("both",)}, "none, sum, concatenate"),
        ({"benchmarks": ("lfw=nowhere.txt:nowhere",)}, "there is no pairs file nowhere.txt"),
        ({"benchmarks": ()}, "--config.benchmarks"),
        ({"baselines": ("eigenfaces",)}, "no baseline eigenfaces"),
    ],
)
def test_mistakes_are_told(workdir, changes, message):
    with pytest.raises(UserError, match=message):
        evaluate.run(config(**changes), workdir)
