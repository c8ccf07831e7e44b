"""What programs on eight devices send, against the arithmetic of rings."""

import pytest

from tests.multi.collectives_worker import ROWS, TURNS, WIDTH
from tests.multi.launch import launch


def test_bytes_on_the_wire_are_those_of_rings():
    (told,) = launch("collectives_worker", devices=8)
    own = 4 * ROWS * WIDTH  # bytes of a device's matrix
    wanted = {
        "all-reduce": ("all-reduce", 2 * 7 / 8 * own),
        "all-reduce of four": ("all-reduce", 2 * 3 / 4 * own),
        "all-gather": ("all-gather", 7 / 8 * 8 * own),
        "reduce-scatter": ("reduce-scatter", 7 / 8 * 8 * own),
        "all-to-all": ("all-to-all", 7 / 8 * own),
        "collective-permute": ("collective-permute", own),
        "loop": ("all-reduce", TURNS * 2 * 7 / 8 * own),
    }
    for name, (kind, sent) in wanted.items():
        assert told[name]["sent"] == {kind: sent}, name
        assert told[name]["wire"] == sent
        assert told[name]["unknown_loops"] == 0
    products = TURNS * 2 * ROWS * WIDTH**2
    assert told["loop"]["flops"] == pytest.approx(products, rel=0.1)
