from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from skipviz.analysis.flops import compute_share, cost_summary, execution_rates
from skipviz.plots import compute_share_figure, execution_rate_by_layer, layers_used_histogram
from skipviz.plots.style.palette import CIVIDIS, interpolate, layers_used_range, shares_along
from skipviz.traces import Trace
from tests.synthetic import make_trace

ALL = [layers_used_histogram, execution_rate_by_layer, compute_share_figure]


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    "trace",
    [
        make_trace(),
        make_trace(gated=()),
        make_trace(units=("block",), visits=2, exec_count=2),
        make_trace(tokens=1, statistics=False, offsets=False, budget=None),
    ],
    ids=["gated", "dense", "repeats", "bare"],
)
def test_figures_say_what_they_show(draw: Callable[[Trace], go.Figure], trace: Trace) -> None:
    figure = draw(trace)
    layout = figure.layout
    assert layout.title.text
    assert layout.xaxis.title.text
    assert "float32" in layout.title.subtitle.text
    assert layout.showlegend
    assert layout.font.color is None, "left to the theme"
    assert layout.paper_bgcolor is None
    assert layout.template.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"
    assert figure.to_json()


@pytest.mark.parametrize("draw", ALL)
def test_no_tokens_is_a_sentence(draw: Callable[[Trace], go.Figure]) -> None:
    with pytest.raises(ValueError, match="0 tokens"):
        draw(make_trace(tokens=0))


@pytest.mark.parametrize("draw", [layers_used_histogram, execution_rate_by_layer])
def test_a_dense_model_is_explained(draw: Callable[[Trace], go.Figure]) -> None:
    assert "no gates" in draw(make_trace(gated=())).layout.annotations[-1].text
    assert not draw(make_trace()).layout.annotations


def test_histogram_counts_tokens_on_the_scale_of_the_model() -> None:
    trace = make_trace(seed=3, tokens=200)
    figure = layers_used_histogram(trace)
    bars = figure.data[0]
    used = trace.tokens["layers_used"].to_numpy()
    for value, share, count in zip(bars.x, bars.y, bars.customdata, strict=True):
        assert count == (used == value).sum()
        assert share == count / 200
    assert sum(bars.customdata) == 200
    assert figure.layout.xaxis.range == (1.0, 7.0)
    assert layers_used_histogram(make_trace(seed=9, rate=0.2)).layout.xaxis.range == (1.0, 7.0)
    ends = layers_used_range(trace)
    wanted = interpolate(CIVIDIS, shares_along(np.asarray(bars.x), ends)).tolist()
    assert list(bars.marker.color) == [f"rgb({r}, {g}, {b})" for r, g, b in wanted]
    assert figure.data[1].name == f"mean {used.mean():.1f}"


def test_execution_rates_stand_at_their_layers() -> None:
    trace = make_trace(seed=3)
    figure = execution_rate_by_layer(trace)
    rates = execution_rates(trace)
    for name, unit in (("attention", "attn"), ("MLP", "mlp")):
        bars = next(t for t in figure.data if t.name == name)
        wanted = rates.filter(pl.col("unit") == unit)
        np.testing.assert_array_equal(bars.x, wanted["layer"].to_numpy())
        np.testing.assert_array_equal(bars.y, wanted["rate"].to_numpy())
    always = [t for t in figure.data if t.name == "always runs (no gate)"]
    assert [list(t.x) for t in always] == [[0, 5], [0, 5]]
    assert [t.showlegend for t in always] == [True, False]
    assert figure.layout.yaxis.range == (0.0, 1.02)


def test_execution_rate_of_a_repeated_layer_is_the_mean_of_its_visits() -> None:
    counts = np.array([[1, 0], [1, 3], [0, 1], [1, 0]])
    bars = execution_rate_by_layer(
        make_trace(tokens=4, units=("block",), gated=(2,), visits=2, exec_count=counts)
    ).data[0]
    assert list(bars.y) == [0.625]


def test_compute_share_stacks_to_the_totals() -> None:
    trace = make_trace(seed=3)
    figure = compute_share_figure(trace)
    shares = compute_share(trace)
    drawn = np.array([t.x for t in figure.data])
    np.testing.assert_array_equal(drawn[:, 1], shares["share"].to_numpy())
    np.testing.assert_array_equal(drawn[:, 0], shares["dense_share"].to_numpy())
    assert [t.name for t in figure.data][:2] == ["attention", "MLP"]
    share = cost_summary(trace).flop_share
    assert drawn[:, 1].sum() == pytest.approx(share)
    assert [a.text for a in figure.layout.annotations] == ["100.0%", f"{share:.1%}"]
