from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import plotly.graph_objects as go
import pytest

from skipviz.plots import execution_rate_by_layer, layer_map
from skipviz.plots.style.palette import MARGIN_ENDS, margin_end
from tests.synthetic import make_trace


def heatmaps(figure: go.Figure, axis: str = "y") -> list[Any]:
    return [t for t in figure.data if t.type == "heatmap" and (t.yaxis or "y") == axis]


def cells(figure: go.Figure, axis: str, rows: int) -> np.ndarray:
    """What a panel shows, a row a layer; NaN where nothing is drawn."""
    maps = heatmaps(figure, axis)
    shown = np.full((rows, maps[0].z.shape[1]), np.nan)
    for part in maps:
        rows_here = slice(int(part.y0), int(part.y0) + part.z.shape[0])
        assert np.isnan(shown[rows_here]).all(), "no two parts overlap"
        shown[rows_here] = part.z
    return shown


def names(figure: go.Figure) -> list[str]:
    return [t.name for t in figure.data if t.type == "scatter"]


def test_map_shows_what_ran_layer_by_layer() -> None:
    trace = make_trace(seed=4, tokens=50)
    figure = layer_map(trace)
    counts = trace.matrix("exec_count")
    for axis, unit in (("y", "attn"), ("y2", "mlp")):
        shown = cells(figure, axis, 6)
        assert not np.isnan(shown).any()
        for site in trace.sites.filter(unit=unit).iter_rows(named=True):
            np.testing.assert_array_equal(shown[site["layer"]], counts[:, site["site"]])
        assert (shown[[0, 5]] == 1).all(), "ungated layers ran"
    assert {part.z.dtype for part in heatmaps(figure)} == {np.dtype(np.uint8)}
    assert names(figure) == ["attention ran", "MLP ran", "skipped", "always runs (no gate)"]
    assert figure.layout.yaxis.title.text == "attention: layer"
    assert figure.layout.yaxis2.title.text == "MLP: layer"
    assert figure.layout.meta["provenance"] == figure.layout.title.subtitle.text.replace(
        "<br>", " · "
    )


def test_map_shows_a_stretch() -> None:
    trace = make_trace(tokens=50)
    figure = layer_map(trace, start=30, count=10)
    shown = cells(figure, "y", 6)
    np.testing.assert_array_equal(shown[1], trace.matrix("exec_count")[30:40, 0])
    assert figure.layout.xaxis.categoryarray[0].startswith("30 ")
    assert "tokens 30 to 39 of 50" in figure.layout.title.text
    assert cells(layer_map(trace, start=45, count=10), "y", 6).shape == (6, 5)


def test_scores_are_drawn_from_the_threshold_on_one_scale() -> None:
    trace = make_trace(tokens=60)
    figure = layer_map(trace, value="score", start=5, count=20)
    margins = trace.matrix("score") - trace.matrix("threshold")
    gated = [part for part in heatmaps(figure) if part.coloraxis]
    np.testing.assert_array_equal(gated[0].z, margins[5:25, ::2].T)
    np.testing.assert_array_equal(gated[0].customdata[..., 0], trace.matrix("score")[5:25, ::2].T)
    axis = figure.layout.coloraxis
    assert axis.cmax == -axis.cmin == margin_end(trace)
    other = layer_map(trace, value="score", start=40, count=3).layout.coloraxis
    assert other.cmax == axis.cmax
    assert names(figure) == ["always runs (no gate)"]


def test_scores_that_are_not_numbers_are_left_out() -> None:
    trace = make_trace(tokens=5)
    trace.matrices["score"].setflags(write=True)
    trace.matrices["score"][:] = np.nan
    assert layer_map(trace, value="score").layout.coloraxis.cmax == MARGIN_ENDS[-1]


def test_repeats_and_visits_have_rows_and_shades() -> None:
    counts = np.random.default_rng(0).integers(0, 4, (40, 6))
    trace = make_trace(units=("block",), gated=(1, 3, 4), visits=2, exec_count=counts)
    figure = layer_map(trace)
    assert list(figure.layout.yaxis.ticktext) == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "1.v1",
        "3.v1",
        "4.v1",
        "5",
    ]
    shown = cells(figure, "y", 9)
    for row, site in ((1, 0), (3, 1), (4, 2), (5, 3), (6, 4), (7, 5)):
        np.testing.assert_array_equal(shown[row], counts[:, site])
    assert names(figure)[:3] == ["block ran once", "block ran 2 times", "block ran 3 times"]
    assert len(set(trace_colours(figure))) == len(trace_colours(figure))


def trace_colours(figure: go.Figure) -> list[str]:
    return [t.marker.color for t in figure.data if t.type == "scatter"]


def test_tokens_are_escaped_in_hovers() -> None:
    labels = layer_map(make_trace()).layout.xaxis.categoryarray
    assert len(set(labels)) == len(labels) == 40, "one place on the axis a token"
    assert not any("<" in label for label in labels)
    assert any("&lt;b&gt;" in label for label in labels)


def test_a_dense_model_is_explained() -> None:
    for value in ("exec_count", "score"):
        figure = layer_map(make_trace(gated=()), value=value)  # type: ignore[arg-type]
        assert (cells(figure, "y", 6) == 1).all()
        assert "no gates" in figure.layout.annotations[0].text
        assert names(figure) == ["always runs (no gate)"]


def test_an_empty_selection_is_a_sentence() -> None:
    trace = make_trace(tokens=10)
    for start, count in ((10, 5), (-1, 5), (3, 0)):
        with pytest.raises(ValueError, match=f"start={start} and count={count} select no tokens"):
            layer_map(trace, start=start, count=count)
    with pytest.raises(ValueError, match="0 tokens"):
        layer_map(make_trace(tokens=0))


def test_an_unknown_value_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    # Outside tests nothing checks types.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="value='loss' is not one of exec_count, score"):
        layer_map(make_trace(), value="loss")  # type: ignore[arg-type]


def test_half_a_million_cells_are_a_small_figure() -> None:
    trace = make_trace(tokens=8192, layers=30, gated=tuple(range(2, 28)))
    assert len(layer_map(trace, count=8192).to_json()) < 2_000_000


@pytest.mark.parametrize("layers", [1, 3, 12])
def test_few_layers_are_named_each_and_once(layers: int) -> None:
    trace = make_trace(layers=layers, gated=(layers - 1,))
    for axis in layer_map(trace).select_yaxes():
        assert (axis.tick0, axis.dtick) == (0, 1)
    assert execution_rate_by_layer(trace).layout.xaxis.dtick == 1
    assert layer_map(trace).layout.xaxis.dtick is None
    many = make_trace(layers=30, gated=(29,))
    assert layer_map(many).layout.yaxis.dtick is None
    assert execution_rate_by_layer(trace).layout.yaxis.dtick is None
