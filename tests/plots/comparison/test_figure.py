from __future__ import annotations

import numpy as np

from skipviz.analysis.comparison import compare_traces
from skipviz.plots.comparison.figure import comparison_figure
from tests.synthetic import make_trace


def test_bars_are_the_first_minus_the_second() -> None:
    found = compare_traces(make_trace(tokens=24, exec_count=1), make_trace(tokens=24, exec_count=0))
    figure = comparison_figure(found)
    layers, nats = figure.data
    assert np.allclose(layers.y, 4.0)  # 6 of 6 layers, and 2
    assert len(nats.y) == found.pieces.height
    assert "&lt;b&gt;" in " ".join(layers.customdata)


def test_of_two_texts_shares_of_tokens_are_drawn() -> None:
    found = compare_traces(make_trace(tokens=24), make_trace(tokens=31))
    figure = comparison_figure(found)
    assert [float(np.sum(bars.y)) for bars in figure.data] == [1.0, 1.0]
