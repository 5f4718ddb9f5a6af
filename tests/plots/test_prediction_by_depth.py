from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
import pytest

from skipviz.plots import influence_bars, settled_histogram
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=400, rate=0.6)


def named(figure: go.Figure, name: str) -> go.Scatter | go.Bar:
    return next(each for each in figure.data if each.name.startswith(name))


def test_settling_and_influence_are_drawn(trace: Trace) -> None:
    settled = pl.DataFrame({"settled": [-1, 5, 5, 2], "exit_depth": [4, 4, None, 3]})
    bars = named(settled_histogram(trace, settled), "prediction")
    assert dict(zip(bars.x, bars.y, strict=True)) == {-1: 0.25, 2: 0.25, 5: 0.5}
    deepest = named(settled_histogram(trace, settled), "deepest")
    assert dict(zip(deepest.x, deepest.y, strict=True)) == {3: 0.25, 4: 0.5}
    turned = pl.DataFrame(
        {
            "layer": [0, 1],
            "influence": [0.9, 0.2],
            "executed": [None, 0.3],
            "executed_tokens": [None, 7],
            "skipped": [None, 0.1],
            "skipped_tokens": [None, 3],
        }
    )
    figure = influence_bars(trace, turned)
    assert list(named(figure, "ran").y) == [0.3]
    assert list(named(figure, "skipped").y) == [0.1]
    assert list(named(figure, "always").x) == [0]
