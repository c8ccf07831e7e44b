"""Embeddings of the sets: kept by block, made anew where anything changed, given ones taken as they are."""

import numpy as np
import pytest
from etils import epath

from configs import privacy
from sface_jax.core.errors import UserError
from sface_jax.privacy.inputs import embedded, sets
from sface_jax.verification.embed import embed
from tests.verification import tiny

OPTIONS = {"batch_size": 8, "flip": "sum"}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp("embedded"))
    tiny.write_dataset(path / "authentic", {"train": 3, "heldout": 2}, each=4)
    tiny.write_dataset(path / "synthetic", {"train": 3}, each=3, first_index=9)
    return path


@pytest.fixture(scope="module")
def network():
    return tiny.untrained()


def opened(here, **changes) -> sets.Sets:
    config = privacy.get_config()
    with config.unlocked():
        config.update({"authentic": f"{here}/authentic", "synthetic": f"{here}/synthetic", **changes})
    return sets.open_sets(config, ["m"])


@pytest.fixture
def counted(monkeypatch):
    """How many pictures were embedded, call by call."""
    calls = []

    def counting(network, images, indices, **options):
        calls.append(len(indices))
        return embed(network, images, indices, **options)

    monkeypatch.setattr(embedded, "embed", counting)
    monkeypatch.setattr(embedded, "BLOCK", 5)
    return calls


def test_an_interrupted_run_goes_on_and_changes_are_seen(here, network, counted, tmp_path):
    found, folder = opened(here), epath.Path(tmp_path)
    faces = embedded.embed_sets(folder, "m", network, found, **OPTIONS)
    assert counted == [5, 5, 2, 5, 3, 5, 4]
    assert faces["members"].labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_allclose(np.linalg.norm(faces["synthetic"].embeddings, axis=1), 1, rtol=1e-5)
    whole = embed(network, found.sources["members"].faces.at(tiny.SIZE), **OPTIONS)
    np.testing.assert_allclose(faces["members"].embeddings, whole, atol=1e-6)

    (folder / "m" / "members" / "00001.npz").write_bytes(b"cut off")
    again = embedded.embed_sets(folder, "m", network, found, **OPTIONS)
    assert counted[7:] == [5]
    assert all((again[name].embeddings == faces[name].embeddings).all() for name in faces)
    embedded.embed_sets(folder, "m", network, opened(here, max_pictures=9), **OPTIONS)
    assert counted[8:] == [5, 4]  # fewer members are others; of the other sets, all are taken as before
    embedded.embed_sets(folder, "m", tiny.untrained(seed=1), found, batch_size=8, flip="sum")
    assert len(counted) == 17


def test_given_embeddings_take_the_place_of_pictures(here, network, tmp_path):
    folder = epath.Path(tmp_path)
    pictures = embedded.embed_sets(folder, "m", network, opened(here), **OPTIONS)
    for name in ("members", "synthetic"):
        np.save(folder / f"{name}.npy", pictures[name].embeddings)
        np.save(folder / f"{name}.labels.npy", pictures[name].labels)
    paths = {"authentic": f"{folder}/members.npy", "synthetic": f"{folder}/synthetic.npy"}
    faces = embedded.embed_sets(folder, "m", None, opened(here, **paths), **OPTIONS)
    for name in ("members", "synthetic"):
        np.testing.assert_allclose(faces[name].embeddings, pictures[name].embeddings, atol=1e-6)
        assert faces[name].labels.tolist() == pictures[name].labels.tolist()
    held = opened(here, **paths, heldout=f"{here}/authentic:heldout")
    with pytest.raises(UserError, match=r"heldout are pictures: set --config.matchers"):
        embedded.embed_sets(folder, "m", None, held, **OPTIONS)
    np.save(folder / "synthetic.npy", pictures["synthetic"].embeddings[:, :-1])
    with pytest.raises(UserError, match=r"differ in width \(16 of members, 15 of synthetic\)"):
        embedded.embed_sets(folder, "m", None, opened(here, **paths), **OPTIONS)
