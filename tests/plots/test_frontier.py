from __future__ import annotations

import polars as pl

from skipviz.plots.frontier import frontier_figure

TABLE = pl.DataFrame(
    {
        "model": ["d", "g", "g", "s"],
        "policy": ["dense", "learned", "learned", "static"],
        "budget": [None, 0.9, 0.8, 0.8],
        "limit": pl.Series([None] * 4, dtype=pl.Float64),
        "documents": [5] * 4,
        "tokens": [1234] * 4,
        "gap": [0.0, 0.1, 0.2, 0.4],
        "gap_low": [0.0, 0.05, 0.15, 0.3],
        "gap_high": [0.0, 0.2, 0.3, 0.6],
        "kl": [0.0, 0.1, 0.2, 0.3],
        "top1": [1.0, 0.9, 0.8, 0.7],
        "realised": [1.0, 0.91, 0.79, 0.8],
        "flop_share": [1.0, 0.92, 0.85, 0.85],
    }
)


def test_every_model_is_a_line_with_intervals() -> None:
    figure = frontier_figure(TABLE)
    assert [line.name for line in figure.data] == ["g (learned)", "s (static)"]
    learned = figure.data[0]
    assert list(learned.x) == [0.79, 0.91]
    assert list(learned.y) == [0.2, 0.1]
    assert [round(each, 6) for each in learned.error_y.array] == [0.1, 0.1]
    assert [round(each, 6) for each in learned.error_y.arrayminus] == [0.05, 0.05]
    assert learned.customdata[0][0] == "budget 0.8: "
    assert "nats" in figure.layout.yaxis.title.text
    assert "1,234 tokens" in figure.layout.title.subtitle.text


def test_policies_differ_in_colour_and_shape() -> None:
    figure = frontier_figure(TABLE)
    assert len({line.line.color for line in figure.data}) == 2
    assert len({line.marker.symbol for line in figure.data}) == 2


def test_models_of_one_policy_differ_in_line_and_mark() -> None:
    more = TABLE.filter(pl.col("model") == "g").with_columns(model=pl.lit("h"))
    figure = frontier_figure(pl.concat([TABLE, more]))
    first, other = (line for line in figure.data if "learned" in line.name)
    assert first.line.color == other.line.color
    assert first.line.dash != other.line.dash
    assert other.marker.symbol.endswith("-open")
    assert other.marker.size > first.marker.size  # seen around a point at the same place
