"""A figure of every decision, token by layer, attention and MLP apart: one number a cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.plots.style.frame import dress, units
from skipviz.plots.style.labels import token_label
from skipviz.plots.style.palette import MARGINS, UNIT_NAMES, scale
from skipviz.traces import Trace

NATS_SHOWN = 0.5
"""Where the colours of what a decision was worth end, the same for every text."""


def cell_map(
    trace: Trace,
    values: npt.NDArray[np.float64],
    *,
    title: str,
    unit: str,
    limit: float = NATS_SHOWN,
    of: str = "nats",
) -> go.Figure:
    """Draw a number for each cell, orange below 0 and violet above.

    Parameters
    ----------
    trace
        Whose cells.
    values
        Of shape [tokens, sites]; NaN where there is none. Tokens beyond them are not drawn.
    title
        Of the figure.
    unit
        What the colours mean, with their unit.
    limit
        Where the colours end, above 0.
    of
        What follows the number when a cell is pointed at.
    """
    rows = units(trace)
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    names = np.array([token_label(text) for text in trace.tokens["text"].head(len(values))])
    for place, kind in enumerate(rows, start=1):
        sites = trace.sites.filter(pl.col("unit") == kind)
        z = values[:, sites["site"].to_numpy()].T
        figure.add_trace(
            go.Heatmap(
                z=z,
                y=sites["layer"].to_list(),
                customdata=np.broadcast_to(names[None], z.shape),
                coloraxis="coloraxis",
                hovertemplate=(
                    f"token %{{x}}: %{{customdata}}<br>{UNIT_NAMES[kind]} of layer %{{y}}<br>"
                    f"%{{z:.4f}} {of}<extra></extra>"
                ),
                hoverongaps=False,
            ),
            row=place,
            col=1,
        )
        figure.update_yaxes(title=f"{UNIT_NAMES[kind]} layer", row=place, col=1)
    figure.update_xaxes(title="token", row=len(rows), col=1)
    dress(figure, trace, title=title, height=160 + 200 * len(rows))
    return figure.update_layout(
        coloraxis={
            "colorscale": scale(MARGINS),
            "cmin": -limit,
            "cmax": limit,
            "colorbar": {"title": {"text": unit, "side": "right"}, "thickness": 14},
        },
        showlegend=False,
        margin={"b": 60},
    )
