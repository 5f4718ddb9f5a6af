"""Which tokens run which layers: a map of classes and sites."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.errors import InputError
from skipviz.plots.style.frame import dress, name_what_is_drawn, units
from skipviz.plots.style.palette import MARGINS, UNIT_NAMES, scale
from skipviz.traces import Trace

ODDS_SHOWN = 3.0
"""Where the colours of log-odds end, the same for every text: odds 20 times as high or low."""


def specialty_map(trace: Trace, table: pl.DataFrame, *, feature: str) -> go.Figure:
    """Draw how much likelier each site is to run for each class of a feature than for others.

    Parameters
    ----------
    trace
        The trace.
    table
        What ``skipviz.analysis.layers.specialties.specialties`` returned.
    feature
        One of its features.

    Raises
    ------
    ValueError
        If the table has no such feature.
    """
    part = table.filter(feature=feature)
    if part.is_empty():
        known = ", ".join(table["feature"].unique(maintain_order=True))
        raise InputError(
            f"feature={feature!r} has no class with enough tokens to be tested. "
            + (f"Choose one of {known}." if known else "No feature has; trace a longer text.")
        )
    classes = part["class"].unique(maintain_order=True).reverse().to_list()
    rows = units(trace)
    figure = make_subplots(
        rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.18,
        subplot_titles=[UNIT_NAMES[unit] for unit in rows],
    )  # fmt: skip
    for place, unit in enumerate(rows, start=1):
        cells = part.filter(unit=unit).sort("layer", "visit")
        _log_odds(figure, cells, classes, place)
    figure.update_xaxes(title="layer", row=len(rows), col=1)
    height = 200 + len(rows) * (50 + 24 * max(3, len(classes)))
    dress(name_what_is_drawn(figure), trace, title="Which tokens run which layers", height=height)
    return figure.update_layout(
        coloraxis={
            "colorscale": scale(MARGINS),
            "cmin": -ODDS_SHOWN,
            "cmax": ODDS_SHOWN,
            "colorbar": {
                "title": {"text": "log-odds", "side": "right"},
                "thickness": 14,
            },
        },
        legend={"itemclick": False, "itemdoubleclick": False},
        margin={"l": 10, "t": 106},
    )


def _log_odds(figure: go.Figure, cells: pl.DataFrame, classes: list[str], place: int) -> None:
    hover = cells.select("rate", "rate_outside", "low", "high", "q", "tokens", "label").rows()
    named = [html.escape(name) for name in cells["class"]]
    figure.add_trace(
        go.Heatmap(
            x=cells["layer"].to_list(),
            y=named,
            z=cells["log_odds"].to_list(),
            customdata=[[_shown(value) for value in row] for row in hover],
            coloraxis="coloraxis",
            hoverongaps=False,
            ygap=1,
            hovertemplate=(
                "%{customdata[6]}, %{y}: runs for %{customdata[0]}<br>"
                "for all others %{customdata[1]}<br>log-odds %{z:.2f}, 95% %{customdata[2]} to "
                "%{customdata[3]}<br>q %{customdata[4]}, %{customdata[5]} tokens<extra></extra>"
            ),
        ),
        row=place,
        col=1,
    )
    sure = cells.filter(pl.col("q") < FALSE_DISCOVERY_RATE)
    figure.add_trace(
        go.Scatter(
            x=sure["layer"].to_list(),
            y=[html.escape(name) for name in sure["class"]],
            mode="markers",
            name=f"differs from chance (q < {FALSE_DISCOVERY_RATE})",
            marker={"symbol": "circle", "size": 6, "color": "#000000",
                    "line": {"color": "#FFFFFF", "width": 1}},
            hoverinfo="skip",
        ),
        row=place,
        col=1,
    )  # fmt: skip
    figure.update_yaxes(
        title="class of token",
        categoryorder="array",
        categoryarray=[html.escape(name) for name in classes],
        automargin=True,
        row=place,
        col=1,
    )


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
