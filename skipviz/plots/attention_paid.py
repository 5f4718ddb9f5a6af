"""Attention to tokens that skipped a layer."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from skipviz.plots.style.frame import dress, name_what_is_drawn
from skipviz.plots.style.palette import INK, UNIT_COLOURS
from skipviz.traces import Trace


def attention_figure(trace: Trace, layers: pl.DataFrame) -> go.Figure:
    """Draw how much attention goes to tokens that skipped the layer.

    Parameters
    ----------
    trace
        The trace.
    layers
        Of ``skipviz.experiments.hidden_states.attention_paid.AttentionPaid``.
    """
    figure = go.Figure()
    lines = (
        ("paid", "attention to tokens that skipped the layer", UNIT_COLOURS["attn"], "solid"),
        ("blind", "with equal attention to all", INK, "dot"),
        ("changed", "change of the output with them hidden", UNIT_COLOURS["mlp"], "dash"),
    )
    for column, name, colour, dash in lines:
        figure.add_trace(
            go.Scatter(
                x=layers["layer"].to_list(),
                y=layers[column].to_list(),
                customdata=layers.select("tokens", "first", "own", "earlier").rows(),
                mode="lines+markers",
                name=name,
                line={"color": colour, "dash": dash},
                marker={"symbol": "square" if column == "changed" else "circle"},
                hovertemplate=(
                    "layer %{x}: %{y:.1%}<br>%{customdata[0]:,} tokens; first token "
                    "%{customdata[1]:.1%}, own %{customdata[2]:.1%}, earlier %{customdata[3]:.1%} "
                    "of all attention<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="share", tickformat=".0%", rangemode="tozero")
    title = "Attention to tokens that skipped the layer"
    return dress(name_what_is_drawn(figure), trace, title=title, height=440)
