from __future__ import annotations

import plotly.graph_objects as go
import polars as pl
import pytest

from skipviz.plots import attention_figure
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=400, rate=0.6)


def named(figure: go.Figure, name: str) -> go.Scatter | go.Bar:
    return next(each for each in figure.data if each.name.startswith(name))


def test_attention_is_drawn(trace: Trace) -> None:
    layers = pl.DataFrame(
        {"layer": [1, 2], "tokens": [9, 8], "first": [0.5, 0.4], "own": [0.2, 0.3],
         "earlier": [0.3, 0.3], "paid": [0.1, None], "blind": [0.2, None], "changed": [0.5, 1.5]}
    )  # fmt: skip
    figure = attention_figure(trace, layers)
    assert list(named(figure, "attention to").y) == [0.1, None]
    assert list(named(figure, "change").y) == [0.5, 1.5]
