"""Two traces side by side: where one used more layers, and where it predicts worse."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.comparison import TraceComparison
from skipviz.plots.style.frame import dress
from skipviz.plots.style.labels import said_of, token_label
from skipviz.plots.style.palette import BLUE, VERMILION
from skipviz.traces import Trace

DEPTH_BINS = 24
"""Bars of layers used, where two texts are compared."""


def comparison_figure(found: TraceComparison) -> go.Figure:
    """Draw where the first of two runs used more layers, and found the text more surprising.

    Of two texts, which have no places in common, it draws how many layers their tokens used.

    Parameters
    ----------
    found
        What ``skipviz.compare_traces`` returned.
    """
    return _depths(found) if found.match == "none" else _along(found)


def _along(found: TraceComparison) -> go.Figure:
    pieces = found.pieces.with_columns(
        layers=pl.col("layers_used") - pl.col("layers_used_other"),
        nats=pl.col("surprisal") - pl.col("surprisal_other"),
    )
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    words = [token_label(text) for text in pieces["text"]]
    for row, (column, title, form) in enumerate(
        (("layers", "layers used", ".2f"), ("nats", "surprisal, nats", ".3f")), start=1
    ):
        values = pieces[column].fill_null(float("nan")).to_numpy()
        figure.add_trace(
            go.Bar(
                x=pieces["piece"].to_numpy(),
                y=values,
                marker={"color": np.where(values > 0, VERMILION, BLUE), "line": {"width": 0}},
                customdata=words,
                hovertemplate=f"%{{customdata}}<br>%{{y:+{form}}} {title}<extra></extra>",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
        figure.update_yaxes(title=title, row=row, col=1)
    figure.update_xaxes(title="piece of the text, in reading order", row=2, col=1)
    figure.update_layout(bargap=0)
    dress(figure, _both(found), title="First minus second run", height=460)
    return figure.update_layout(margin={"b": 60})


def _depths(found: TraceComparison) -> go.Figure:
    figure = go.Figure()
    for name, trace, colour in (
        ("first", found.trace, BLUE),
        ("second", found.other, VERMILION),
    ):
        share = trace.tokens["layers_used"].cast(pl.Float64).to_numpy() / _layers(trace)
        counts, edges = np.histogram(share, bins=DEPTH_BINS, range=(0.0, max(1.0, share.max())))
        figure.add_trace(
            go.Bar(
                x=(edges[1:] + edges[:-1]) / 2,
                y=counts / len(trace),
                name=name,
                marker_color=colour,
                hovertemplate="%{x:.0%} of the layers: %{y:.1%} of tokens<extra></extra>",
            )
        )
    figure.update_xaxes(title="layers used, share of the model's layers", tickformat=".0%")
    figure.update_yaxes(title="share of tokens", tickformat=".0%")
    return dress(figure, _both(found), title="Layers used in two texts", height=380)


def _layers(trace: Trace) -> int:
    return int(trace.run["layers"].item())


def _both(found: TraceComparison) -> str:
    line = f"{said_of(found.trace)} and {said_of(found.other)}"
    return html.escape(line, quote=False).replace("$", "&#36;")
