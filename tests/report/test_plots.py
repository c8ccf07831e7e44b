"""The charts: valid SVG whatever the data, coloured by the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sface_jax.report import plots

RATES = arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1)).map(np.sort)


def check(svg: str, name: str) -> None:
    ElementTree.fromstring(svg)
    for stand_in in plots.STAND_IN.values():
        assert stand_in not in svg
    assert all(found.startswith(name) for found in re.findall(r' id="([^"]*)"', svg))
    assert 'aria-label="a &lt;chart&gt;"' in svg


@settings(max_examples=3, deadline=None)
@given(fmr=RATES, log=st.booleans())
def test_charts_of_any_rates(fmr, log):
    curve = {"x": (fmr, fmr[::-1].copy())}
    colours = {"x": "synthetic"}
    check(plots.roc("r", curve, colours, "a <chart>"), "r")
    check(plots.det("d", curve, colours, "a <chart>"), "d")
    check(plots.curves("c", curve, colours, "a <chart>", xlabel="step", ylabel="loss", log=log), "c")


@settings(max_examples=3, deadline=None)
@given(counts=arrays.arrays(np.float64, 10, elements=st.integers(0, 50)), threshold=st.none() | st.floats(-1, 1))
def test_histograms_of_any_counts(counts, threshold):
    panel = plots.Panel("p", np.linspace(-1, 1, 11), [("mated", counts, "cross"), ("non-mated", counts[::-1], "other")])
    check(plots.scores("s", [panel, panel], "a <chart>", threshold, "here"), "s")


def test_accuracy_and_match_rates_with_odd_values():
    bars = [plots.Bar("below chance", 0.31, 0.2, 0.4, "other"), plots.Bar("perfect", 1.0, 1.0, 1.0, "authentic")]
    check(plots.accuracy("a", bars, "a <chart>"), "a")
    nothing = plots.Bar("never", 0.0, np.nan, np.nan, "cross")
    check(plots.match_rates("m", {"x": [(1e-3, nothing), (1e-2, bars[1])]}, "a <chart>"), "m")


def test_long_logs_are_thinned_to_their_shape():
    steps = np.arange(20_000.0)
    x, y = plots._thinned(steps, np.where(steps < 100, 5.0, 0.1))
    assert len(x) <= 250 and x[0] == 0 and x[-1] == steps[-1] and y.max() == 5.0
    svg = plots.curves("c", {"x": (steps, np.sin(steps))}, {"x": "other"}, "a <chart>", xlabel="step", ylabel="loss")
    assert len(svg) < 60_000
