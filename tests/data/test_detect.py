import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest

from sface_jax.core import pictures
from sface_jax.core.errors import UserError
from sface_jax.data import align, detect

LFW = Path(__file__).parents[2] / ".." / "shared" / "data" / "lfw" / "view2"


class FakeNetwork:
    """Answers as the package `mtcnn` does: rows of picture, box, confidence, 5 x, 5 y."""

    def __init__(self, answers):
        self.answers, self.seen = list(answers), []

    def detect_faces(self, image, **options):
        self.seen.append((image.shape, options))
        return np.array(self.answers.pop(0), np.float64).reshape(-1, 16)


def face(left, top, side, points=None):
    points = align.template(side) + [left, top] if points is None else points
    return [0, left, top, left + side, top + side, 0.99, *points[:, 0], *points[:, 1]]


def detector(monkeypatch, *answers, **options):
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: name)
    made = detect.Mtcnn(**options)
    made._network = FakeNetwork(answers)
    return made


def test_the_face_is_the_largest_unless_another_is_nearer_to_the_centre():
    def chosen(*boxes):
        return detect.choose(np.array(boxes, np.float32), 200, 300)

    assert chosen((0, 0, 40, 40)) == 0
    assert chosen((140, 90, 160, 110), (100, 50, 200, 150)) == 1  # both in the middle
    assert chosen((0, 0, 90, 90), (110, 60, 190, 140)) == 1  # a larger one in the corner
    assert chosen((130, 80, 170, 120), (120, 20, 240, 140)) == 1  # a much larger one not far from the middle


def test_landmarks_are_those_of_the_chosen_face_in_pixels_of_the_picture(monkeypatch):
    find = detector(monkeypatch, [face(0, 0, 30), face(60, 40, 100)], threshold=0.7)
    points = find(np.zeros((200, 220, 3), np.uint8))
    np.testing.assert_allclose(points, align.template(100) + [60, 40], atol=1e-4)
    assert points.dtype == np.float32
    assert find._network.seen[0][1]["threshold_onet"] == 0.7


def test_a_large_picture_is_shrunk_and_its_landmarks_enlarged(monkeypatch):
    find = detector(monkeypatch, [face(10, 5, 50)], longest=100)
    points = find(np.zeros((300, 400, 3), np.uint8))
    assert find._network.seen[0][0] == (75, 100, 3)
    np.testing.assert_allclose((points + 0.5) / 4, align.template(50) + [10.5, 5.5], atol=1e-4)


def test_where_nothing_is_found_it_looks_again_with_a_border_and_then_gives_up(monkeypatch):
    found = detector(monkeypatch, [], [face(60, 50, 80)])(np.full((100, 80, 3), 9, np.uint8))
    np.testing.assert_allclose(found, align.template(80) + [10, 0], atol=1e-4)
    assert detector(monkeypatch, [], [])(np.zeros((100, 80, 3), np.uint8)) is None
    assert detector(monkeypatch)(np.zeros((4, 4, 3), np.uint8)) is None  # too small to be asked about


def test_specs_that_do_not_work_are_told_in_one_line(monkeypatch):
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package mtcnn: pip install '\.\[align\]'"):
        detect.open_detector("mtcnn")
    with pytest.raises(UserError, match="choose from mtcnn"):
        detect.open_detector("dlib")
    with pytest.raises(UserError, match="threshold is 1.5: set it between 0 and 1"):
        detect.open_detector("mtcnn(threshold=1.5)")
    with pytest.raises(UserError, match="longest is 10"):
        detect.open_detector("mtcnn(longest=10)")


@pytest.mark.skipif(not importlib.util.find_spec("mtcnn"), reason="no package mtcnn: pip install '.[align]'")
def test_the_package_itself_finds_faces_and_nothing_where_there_are_none(capfd):
    find = pickle.loads(pickle.dumps(detect.open_detector("mtcnn(threshold=0.9)")))
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    assert find(noise) is None
    assert capfd.readouterr().err == ""
    again = pickle.loads(pickle.dumps(find))
    assert again._network is None
    if not LFW.is_dir():
        pytest.skip("no real faces to detect: ../shared/data/lfw is not there")
    images = [pictures.decode(path.read_bytes()) for path in sorted(LFW.glob("*/*.jpg"))[::1500]]
    images.append(np.pad(np.repeat(np.repeat(images[0], 6, 0), 6, 1), ((50, 0), (0, 0), (0, 0))))
    found = [find(image) for image in images]
    away = [np.linalg.norm(points - align.template(112), axis=1).mean() for points in found[:-1]]
    assert max(away) < 8 and np.median(away) < 5  # LFW is aligned to the template
    last = (found[-1] - [0, 50] + 0.5) / 6 - 0.5
    assert np.linalg.norm(last - found[0], axis=1).mean() < 2


def test_weights_that_lie_about_are_not_loaded(tmp_path, monkeypatch):
    (tmp_path / "onet.lz4").write_bytes(b"a pickle")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="onet.lz4 of this folder"):
        detect._load()
