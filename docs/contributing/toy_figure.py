"""A figure of its own: bars of the runs that ``toy_analysis`` finds."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from skipviz.plots.style.frame import dress
from skipviz.plots.style.palette import UNIT_COLOURS
from skipviz.traces import Trace


def skip_run_bars(trace: Trace, runs: pl.DataFrame) -> go.Figure:
    """Draw how many tokens in a row skip each layer.

    Parameters
    ----------
    trace
        The trace.
    runs
        What ``skip_runs`` returned.
    """
    figure = go.Figure()
    for (unit,), rows in runs.group_by("unit", maintain_order=True):
        figure.add_trace(
            go.Bar(
                x=rows["layer"].to_list(),
                y=rows["tokens"].to_list(),
                name=str(unit),
                marker_color=UNIT_COLOURS[str(unit)],
                hovertemplate="layer %{x}: %{y:,} tokens in a row<extra></extra>",
            )
        )
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="tokens in a row that skip it, at most")
    return dress(figure, trace, title="The longest skipped runs", height=420)
