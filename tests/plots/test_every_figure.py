"""What holds for every figure that ``skipviz.plots`` offers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

import skipviz.plots
from skipviz.analysis.gate_quality import judged, quality_by, reliability
from skipviz.trace import Trace
from tests.plots.test_frontier import TABLE
from tests.synthetic import make_trace

TRACE = make_trace(tokens=40)


def _cells(trace: Trace) -> pl.DataFrame:
    executed = trace.matrix("exec_count")[:-1] > 0
    token, site = np.indices(executed.shape).reshape(2, -1)
    utility = np.random.default_rng(0).standard_normal(len(token))
    columns = {"token": token, "site": site, "executed": executed.ravel(), "utility": utility}
    return judged(trace, pl.DataFrame(columns))


CELLS = _cells(TRACE)
FIGURES: dict[str, Callable[[], go.Figure]] = {
    "compute_share_figure": lambda: skipviz.plots.compute_share_figure(TRACE),
    "execution_rate_by_layer": lambda: skipviz.plots.execution_rate_by_layer(TRACE),
    "frontier_figure": lambda: skipviz.plots.frontier_figure(TABLE),
    "layer_map": lambda: skipviz.plots.layer_map(TRACE),
    "layers_used_histogram": lambda: skipviz.plots.layers_used_histogram(TRACE),
    "next_tokens": lambda: skipviz.plots.next_tokens(TRACE, 3),
    "ranking_by_layer": lambda: skipviz.plots.ranking_by_layer(TRACE, quality_by(CELLS, "label")),
    "reliability_figure": lambda: skipviz.plots.reliability_figure(TRACE, reliability(CELLS)),
    "token_path": lambda: skipviz.plots.token_path(TRACE, 3),
    "utility_map": lambda: skipviz.plots.utility_map(TRACE, CELLS),
}
NO_FIGURES = {"token_html"}
"""Coloured text, which has no axes."""
QUANTITIES = (
    *("layer", "token", "decisions", "forward pass", "share", "nats", "probability", "score"),
    "AUROC",
)
"""What an axis may be in: its unit, or what is counted along it."""


def test_every_export_is_looked_at_here() -> None:
    assert set(skipviz.plots.__all__) - NO_FIGURES == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_say_what_where_and_of_whom(name: str) -> None:
    layout = FIGURES[name]().layout
    assert layout.title.text
    assert layout.meta["provenance"]
    assert layout.meta["provenance"] in layout.title.subtitle.text
    for word in ("tokens",) if name == "frontier_figure" else ("synthetic", "learned", "40 tokens"):
        assert word in layout.meta["provenance"]


@pytest.mark.parametrize("name", FIGURES)
def test_axes_and_colours_have_names_and_units(name: str) -> None:
    figure = FIGURES[name]()
    # Of axes that move together only the outermost shows its ticks and its name.
    axes = [
        axis
        for axis in (*figure.select_xaxes(), *figure.select_yaxes())
        if axis.matches is None or axis.showticklabels is not False
    ]
    assert len(axes) >= 2
    titles = [axis.title.text for axis in axes]
    if figure.layout.coloraxis.colorscale and figure.layout.coloraxis.showscale is not False:
        titles.append(figure.layout.coloraxis.colorbar.title.text)
    for title in titles:
        assert title
        assert any(quantity in title for quantity in QUANTITIES), title
