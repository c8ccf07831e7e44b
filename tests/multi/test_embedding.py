"""Embeddings come back in the order of their pictures, whatever the devices, and are the same on all of them."""

import numpy as np
import pytest

from tests.multi.launch import launch


@pytest.fixture(scope="module")
def alone():
    (told,) = launch("embedding_worker")
    return told


@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 2)])
def test_embeddings_do_not_depend_on_the_devices(alone, processes, devices):
    for told in launch("embedding_worker", processes=processes, devices=devices):
        assert told["rows"] == list(range(11)) and told["devices"] == processes * devices
        np.testing.assert_allclose(told["embeddings"], alone["embeddings"], rtol=1e-4, atol=1e-5)
        assert told["collectives"] == (["all-gather"] if processes > 1 else [])
