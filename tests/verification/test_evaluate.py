"""Stage verify on a small work directory."""

import functools
import hashlib
import json

import numpy as np
import pytest
from etils import epath

from configs import verify
from sface_jax.core import files, mesh, pictures
from sface_jax.core.errors import UserError
from sface_jax.recognition import features
from sface_jax.report.verification import write_page
from sface_jax.verification import cache, during, evaluate
from sface_jax.verification.benchmarks import open_benchmark
from sface_jax.verification.embed import fuse
from tests.data import template_set
from tests.verification import tiny

run = functools.partial(evaluate.run, write_page=write_page)


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
    table = run(config(benchmarks=benchmarks, baselines=("pixels",)), workdir)
    assert set(table) == {"heldout", "mine"} and set(table["mine"]) == {"combined", "pixels"}
    document = files.read_json(workdir / "verification" / "combined.json")
    assert document["network"] == "combined" and document["preprocessing"]["size"] == tiny.SIZE
    for name, pairs in (("heldout", 40), ("mine", 20)):
        found = document["benchmarks"][name]
        assert (found["folds"], found["pairs"], len(found["per_fold"])) == (10, pairs, 10)
        assert found["accuracy"] == table[name]["combined"]["accuracy"] == pytest.approx(np.mean(found["per_fold"]))
        assert found["roc"]["fmr"][0] == 0 and found["roc"]["tmr"][-1] == 1
        # of so few people no spread can be told
        assert "accuracy" not in found["interval_95"] and found["interval_95"]["subjects_from"] == "names"
        assert found["exact"]["tmr_at_fmr"]["1e-1"]["supported"] is False
    assert found["file_sha256"] == hashlib.sha256((tmp_path / "pairs.txt").read_bytes()).hexdigest()
    assert set(document["protocols"]) == {"insightface", "exact"} and document["crop"] == 1
    by_distance = [(pair["mated"], pair["distance"]) for pair in found["hardest"]]
    assert by_distance == sorted(by_distance, key=lambda pair: (not pair[0], -pair[1] if pair[0] else pair[1]))
    page = (workdir / "verification" / "index.html").read_text()
    assert "mine" in page and "heldout" in page and "<img" not in page
    told = (workdir / "verification" / "table.md").read_text()
    assert f"{100 * table['mine']['combined']['accuracy']:.2f}" in told and "| mean |" in told


def test_the_page_shows_people_only_where_it_may(workdir):
    page = workdir / "verification" / "index.html"
    run(config(show_authentic=True, baselines=("pixels",)), workdir)
    assert page.read_text().count("<img") == 2 * 20  # ten of each kind
    run(config(), workdir)
    assert "<img" not in page.read_text()


def test_the_table_keeps_networks_of_earlier_runs_on_the_same_files(workdir):
    tiny.write_network(workdir / "recognition" / "other", seed=1)
    run(config(networks=("other",)), workdir)
    told = (workdir / "verification" / "table.md").read_text()
    assert "| combined sum |" in told and "| other sum |" in told
    document = files.read_json(workdir / "verification" / "combined.json")
    document["benchmarks"] = {"heldout": document["benchmarks"]["heldout"] | {"sha256": "of other pictures"}}
    files.write_json(workdir / "verification" / "combined.json", document)
    run(config(networks=("other",)), workdir)
    assert "combined" not in (workdir / "verification" / "table.md").read_text()


def test_another_preprocessing_and_crop_are_told_and_change_the_pictures(workdir):
    plain = run(config(), workdir)
    run(config(preprocessing="imagenet bgr", crop=0.7), workdir)
    document = files.read_json(workdir / "verification" / "combined.json")
    assert document["preprocessing"]["channel_order"] == "bgr" and document["crop"] == 0.7
    assert document["preprocessing"]["mean"][2] == 0.485
    found = document["benchmarks"]["heldout"]
    assert run(config(), workdir) == plain
    again = files.read_json(workdir / "verification" / "combined.json")["benchmarks"]["heldout"]
    assert again["sha256"] == found["sha256"] and again["hardest"] != found["hardest"]


def test_templates_beside_pairs(workdir, tmp_path):
    images = np.stack([tiny.render(np.full(8, person), np.arange(8)) for person in range(6)])
    folder = template_set.write(tmp_path / "set", images)
    table = run(config(benchmarks=("heldout", f"ijb=templates:{folder}")), workdir)
    assert table["ijb"]["combined"]["tar_at_far_1e-4"] <= 1 and "accuracy" not in table["ijb"]["combined"]
    found = files.read_json(workdir / "verification" / "combined.json")["benchmarks"]["ijb"]
    assert (found["templates"], found["pictures"], found["pairs"]) == (24, 48, 24 * 23 // 2)
    assert found["identification"]["mean"]["rank_1"] > 0.5 and found["exact"]["tmr_at_fmr"]["1e-1"]["tmr"] > 0.5
    assert "tiny_face_tid_mid.txt" in found["files_sha256"]
    plain = config(benchmarks=(f"ijb=templates:{folder}",), norm_weighting=False, detector_weighting=False)
    run(plain, workdir)
    other = files.read_json(workdir / "verification" / "combined.json")["benchmarks"]["ijb"]
    thresholds = [one["exact"]["tmr_at_fmr"]["1e-1"]["threshold"] for one in (found, other)]
    assert thresholds[0] != thresholds[1] and other["detector_weighting"] is False
    assert "24 templates" in (workdir / "verification" / "index.html").read_text()
    assert "| network | ijb |" in (workdir / "verification" / "table.md").read_text()
    with pytest.raises(UserError, match="--config.crop=1.0"):
        run(config(benchmarks=(f"ijb=templates:{folder}",), crop=0.8), workdir)


def test_all_benchmarks_share_one_compiled_network(workdir):
    judge = during.open_judge(("heldout",), workdir, tiny.SIZE, 8)
    network = tiny.untrained()
    features._compiled.cache_clear()
    first = judge(network)
    forward = features._compiled(network.module, network.preprocessing, True, mesh.make_mesh())
    assert forward._cache_size() == 1
    assert judge(tiny.untrained(seed=1)) != first and forward._cache_size() == 1
    assert first["heldout_accuracy"] == run(config(networks=("combined",)), workdir)["heldout"]["combined"]["accuracy"]


def test_embeddings_are_kept_until_something_changes(workdir, monkeypatch):
    first = run(config(), workdir)
    calls = []
    original = cache.features
    monkeypatch.setattr(cache, "features", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    assert run(config(), workdir) == first and not calls
    run(config(flip=("none",)), workdir)
    assert calls


def test_ways_to_put_picture_and_mirror_image_together_are_told_by_name(workdir):
    table = run(config(flip=("concatenate", "sum")), workdir)
    found = table["heldout"]["combined"]
    assert found["flips"]["concatenate"]["accuracy"] == found["accuracy"] and set(found["flips"]) == {
        "concatenate",
        "sum",
    }
    views = np.load(workdir / "verification/embeddings/combined/heldout.npz")["features"]
    benchmark = open_benchmark("heldout", workdir, tiny.SIZE)
    for flip, of in found["flips"].items():
        assert evaluate.measure(fuse(views, flip), benchmark)["accuracy"] == of["accuracy"]
    document = files.read_json(workdir / "verification" / "combined.json")
    assert document["flip"] == "concatenate" and document["benchmarks"]["heldout"]["pictures_per_second"] > 0


def test_names_of_any_kind_are_shown_and_harm_nothing(workdir, tmp_path):
    names = ["_a {b", "$x_{$ 100%", "<b>|#010101"]
    lists = []
    for name in names:
        tiny.write_network(tmp_path / name, seed=len(name))
        lists.append(str(tmp_path / name))
    run(config(networks=tuple(lists), benchmarks=("heldout",)), workdir)
    page = (workdir / "verification" / "index.html").read_text()
    assert "_a {b" in page and "100%" in page and "&lt;b&gt;|#010101" in page and "<b>|" not in page
    assert "&lt;b>&#124;#010101" in (workdir / "verification" / "table.md").read_text()
    for name in names:
        (workdir / "verification" / f"{name}.json").unlink()


def test_what_lies_about_is_told_and_left_alone(workdir):
    folder = workdir / "verification"
    run(config(), workdir)
    (folder / "embeddings" / "combined" / "heldout.npz").write_bytes(b"PK cut short")
    for name, text in {"foreign": "[1]", "broken": "{"}.items():
        files.write_text(folder / f"{name}.json", text)
    expected = run(config(), workdir)
    assert expected == run(config(), workdir)
    assert "foreign" not in (folder / "table.md").read_text() and (folder / "foreign.json").read_text() == "[1]"
    for name in ("foreign", "broken"):
        (folder / f"{name}.json").unlink()


def test_pairs_that_were_dealt_anew_are_marked_and_keep_their_numbers(workdir, tmp_path):
    lines = (workdir / "authentic" / "heldout_pairs.txt").read_text().splitlines()
    people = sorted({line.split("\t")[0] for line in lines[1:]})
    for person in people:
        for i, image in enumerate(tiny.render(np.full(5, int(person[1:])), np.arange(5)), start=1):
            pictures.write_png(tmp_path / "faces" / person / f"{person}_{i:04d}.png", image)
    same = [line for line in lines[1:] if line.count("\t") == 2]
    different = [line for line in lines[1:] if line.count("\t") == 3]
    files.write_text(tmp_path / "apart.txt", "\n".join([str(len(same)), *same, *different]) + "\n")
    run(config(benchmarks=(f"apart={tmp_path}/apart.txt:{tmp_path}/faces",)), workdir)
    text = (workdir / "verification" / "combined.json").read_text()
    found = json.loads(text, parse_constant=pytest.fail)["benchmarks"]["apart"]
    assert found["order"] == "dealt anew" and found["left_out"] == 0
    assert all(pair["mated"] == (pair["pair"] < len(same)) for pair in found["hardest"])
    assert "†" in (workdir / "verification" / "table.md").read_text()
    assert "dealt anew" in (workdir / "verification" / "index.html").read_text()


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
        ({"preprocessing": "imagnet"}, "no word 'imagnet'"),
        ({"det_axes": "probit"}, "log, normal"),
        ({"benchmarks": ("heldout", "heldout")}, "two benchmarks are called heldout"),
        ({"crop": 0.0}, "config.crop is 0.0"),
        ({"crop": float("nan")}, "config.crop is nan"),
        ({"benchmarks": ("a\nb=x.bin",)}, "no name for a benchmark"),
    ],
)
def test_mistakes_are_told(workdir, changes, message):
    with pytest.raises(UserError, match=message):
        run(config(**changes), workdir)
