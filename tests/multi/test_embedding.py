"""Embeddings come back in the order of their pictures, whatever the order of the devices."""

from tests.multi.launch import launch


def test_rows_are_in_the_order_of_the_pictures():
    for told in launch("embedding_worker", processes=2, devices=2):
        assert told == {"rows": list(range(11)), "devices": 4}
