"""Figures of models with few layers: the names of their axes are there whole."""

from __future__ import annotations

from itertools import pairwise

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Page

from skipviz import plots
from skipviz.analysis.clusters.clustering import cluster
from tests.synthetic import make_trace

SIDES = "each => { const box = each.getBoundingClientRect(); return [box.top, box.bottom]; }"
NAMES = f"""plot => [...plot.querySelectorAll("[class^=y][class$=title]")]
  .filter((each) => each.textContent).map({SIDES})"""
"""Top and bottom of each name of a vertical axis."""


def figures(layers: int) -> list[go.Figure]:
    found = []
    for units in (("block",), ("attn", "mlp")):
        gated = tuple(range(1 if layers > 1 else 0, layers))
        trace = make_trace(layers=layers, gated=gated, units=units)
        found += [
            plots.layer_map(trace),
            plots.layer_map(trace, value="score"),
            plots.cluster_profiles(trace, cluster(trace).profiles),
            plots.token_path(trace, 3),
        ]
    return found


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 6])
def test_names_of_axes_neither_end_at_an_edge_nor_overlap(page: Page, layers: int) -> None:
    drawn = [
        figure.to_html(include_plotlyjs=not number, full_html=False)
        for number, figure in enumerate(figures(layers))
    ]
    page.set_content(f"<body>{''.join(drawn)}")
    page.wait_for_function(
        "count => document.querySelectorAll('[class^=x][class$=title]').length >= count",
        arg=len(drawn),
    )
    for number in range(len(drawn)):
        plot = page.locator(".plotly-graph-div").nth(number)
        top, bottom = plot.evaluate(SIDES)
        names = sorted(plot.evaluate(NAMES))
        assert names
        assert top <= names[0][0]
        assert names[-1][1] <= bottom
        for (_, above), (below, _) in pairwise(names):
            assert above <= below
