"""What linear probes read from hidden states, after each layer."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import polars as pl

from skipviz.analysis.statistics.blocks import FOLDS
from skipviz.analysis.statistics.intervals import SHARE_CHANGE, interval_ends, student_margin
from skipviz.plots.style.frame import dress, naming_intervals
from skipviz.plots.style.palette import INK, ORANGE, PART_COLOURS, PART_NAMES, UNIT_COLOURS
from skipviz.traces import Trace

"""Texts from which on probes are judged by whole texts that they have not seen."""
_PART_DASHES = {"all": "solid", "executed": "solid", "skipped": "dash"}
_PART_SYMBOLS = {"all": "circle", "executed": "square", "skipped": "diamond"}


def probe_accuracy(trace: Trace, table: pl.DataFrame, *, feature: str) -> go.Figure:
    """Draw how often a probe is right after each layer, and on its control task.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.experiments.hidden_states.probes.probes`` returned.
    feature
        One of its features.
    """
    part = table.filter(feature=feature, part="all").sort("layer")
    figure = go.Figure()
    lines = (
        ("accuracy", "probe", UNIT_COLOURS["block"], "solid", "circle"),
        ("control", "control task: a random label per word", ORANGE, "dash", "diamond"),
        ("majority", "always the largest class", INK, "dot", None),
    )
    for column, name, colour, dash, symbol in lines:
        figure.add_trace(
            go.Scatter(
                x=part["layer"].to_list(),
                y=part[column].to_list(),
                mode="lines" if symbol is None else "lines+markers",
                name=name,
                line={"color": colour, "dash": dash},
                marker={"symbol": symbol or "circle"},
                hovertemplate="layer %{x}: %{y:.1%} accuracy<extra></extra>",
            )
        )
    _by_layer(figure)
    several = trace.tokens["sequence"].n_unique() >= FOLDS
    unseen = "unseen texts" if several else "unseen parts of the text"
    figure.update_yaxes(title=f"accuracy on {unseen}", tickformat=".0%", range=[0, 1.02])
    return dress(figure, trace, title="What a linear probe reads", height=420)


def probe_selectivity(trace: Trace, table: pl.DataFrame, *, feature: str) -> go.Figure:
    """Draw selectivity after each layer, for tokens that ran it and that skipped it.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.experiments.hidden_states.probes.probes`` returned.
    feature
        One of its features.
    """
    figure = go.Figure()
    drawn: list[float] = []
    figure.add_hline(y=0.0, line={"color": INK, "dash": "dot"})
    for place, (name, colour) in enumerate(PART_COLOURS.items()):
        part = table.filter(feature=feature, part=name).sort("layer")
        if part.is_empty():
            continue
        margins = [student_margin(*row) for row in part.select("error", "groups").rows()]
        gain = part["selectivity"].to_numpy()
        low, high = interval_ends(gain, np.array(margins), SHARE_CHANGE)
        drawn += margins
        figure.add_trace(
            go.Scatter(
                # Side by side, so that the intervals can be told apart.
                x=[layer + 0.18 * (place - 1) for layer in part["layer"]],
                y=part["selectivity"].to_list(),
                error_y={
                    "array": (high - gain).tolist(),
                    "arrayminus": (gain - low).tolist(),
                    "thickness": 1,
                    "width": 0,
                },
                customdata=part.select("layer", "accuracy", "control", "tokens").rows(),
                mode="lines+markers",
                name=PART_NAMES[name],
                line={"color": colour, "dash": _PART_DASHES[name], "width": 1.5},
                marker={"symbol": _PART_SYMBOLS[name], "size": 6},
                hovertemplate=(
                    "layer %{customdata[0]}: %{y:.3f}<br>probe %{customdata[1]:.1%}, control "
                    "%{customdata[2]:.1%}<br>%{customdata[3]:,} tokens<extra></extra>"
                ),
            )
        )
    _by_layer(figure)
    figure.update_yaxes(title=naming_intervals("accuracy minus control", drawn))
    return dress(figure, trace, title="Accuracy above the control task", height=420)


def _by_layer(figure: go.Figure) -> None:
    figure.update_xaxes(title="after layer (-1: embeddings)")
