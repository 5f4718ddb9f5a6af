"""Where predictions settle, and how much layers change the hidden state."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from skipviz.plots.style.frame import dress
from skipviz.plots.style.palette import ALWAYS_RUNS, ORANGE, PART_COLOURS, PART_NAMES, UNIT_COLOURS
from skipviz.traces import Trace


def settled_histogram(trace: Trace, settled: pl.DataFrame) -> go.Figure:
    """Draw after which layer predictions are settled, and which gated layer ran last.

    Parameters
    ----------
    trace
        The trace.
    settled
        What ``skipviz.experiments.hidden_states.prediction_by_depth.convergence_layers`` returned.
    """
    figure = go.Figure()
    bars = (
        ("settled", "prediction settled", UNIT_COLOURS["block"]),
        ("exit_depth", "deepest gated layer that ran", ORANGE),
    )
    for column, name, colour in bars:
        counted = settled[column].drop_nulls().value_counts().sort(column)
        if counted.is_empty():
            continue
        figure.add_trace(
            go.Bar(
                x=counted[column].to_list(),
                y=(counted["count"] / settled.height).to_list(),
                customdata=counted["count"].to_list(),
                name=name,
                marker_color=colour,
                hovertemplate="layer %{x}: %{y:.1%} of tokens (%{customdata:,})<extra></extra>",
            )
        )
    figure.update_xaxes(title="layer (-1: embeddings)", range=[-1.6, trace.run["layers"][0] - 0.4])
    figure.update_yaxes(title="share of tokens", tickformat=".0%")
    return dress(figure, trace, title="At which layer predictions are settled", height=420)


def influence_bars(trace: Trace, turned: pl.DataFrame) -> go.Figure:
    """Draw how much each layer changes the direction of the hidden state.

    Parameters
    ----------
    trace
        The trace.
    turned
        What ``skipviz.experiments.hidden_states.prediction_by_depth.layer_influence`` returned.
    """
    figure = go.Figure()
    for name in ("executed", "skipped"):
        part = turned.drop_nulls(name)
        if part.is_empty():
            continue
        figure.add_trace(
            go.Bar(
                x=part["layer"].to_list(),
                y=part[name].to_list(),
                customdata=part[f"{name}_tokens"].to_list(),
                name=PART_NAMES[name],
                marker_color=PART_COLOURS[name],
                hovertemplate="layer %{x}: %{y:.4f}, %{customdata:,} tokens<extra></extra>",
            )
        )
    always = turned.filter(pl.col("executed_tokens").is_null())
    if always.height:
        figure.add_trace(
            go.Bar(
                x=always["layer"].to_list(),
                y=always["influence"].to_list(),
                name="always runs (no gate)",
                marker_color=ALWAYS_RUNS,
                hovertemplate="layer %{x}: %{y:.4f}<extra></extra>",
            )
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="Block Influence: 1 - cosine (log scale)", type="log")
    return dress(figure, trace, title="How much each layer changes the hidden state", height=420)
