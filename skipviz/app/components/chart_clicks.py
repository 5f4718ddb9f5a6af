"""Clicks on points and cells of a Plotly figure, which select a token on the canvas.

Streamlit tells of clicks on points that it then draws otherwise, and of none on a map. So a script
of ours, which shows nothing, listens to the figure and tells which point was clicked.
"""

from __future__ import annotations

import re
from typing import Any

from skipviz.app.components.component import component
from skipviz.app.jobs import Request
from skipviz.app.state import on_canvas
from skipviz.plots.style.frame import units
from skipviz.traces import Trace

_COMPONENT = component("chart_clicks", shows=False)


def clicked_point(chart: str) -> dict[str, Any] | None:
    """Return the point of a figure that was clicked since the page was drawn last.

    Parameters
    ----------
    chart
        The key of the figure on the page.

    Returns
    -------
    dict or None
        ``curve``, which trace of the figure it is of; ``at``, its place there, [row, column] on a
        map; ``x``; and ``data``, its own of ``customdata``.
    """
    # As Streamlit writes a key where the browser finds it.
    name = re.sub(r"[^a-zA-Z0-9_-]", "-", chart.strip())
    result = _COMPONENT(
        key=f"clicks on {chart}", data={"chart": name}, on_point_change=lambda: None
    )
    point: dict[str, Any] | None = result.point
    return point


def select_clicked(
    request: Request, chart: str, token: int | None, site: int | None = None
) -> None:
    """Select on the canvas what was clicked in a figure; nothing where there is no token.

    Parameters
    ----------
    request
        As pages have it.
    chart
        The key of the figure on the page.
    token, site
        Their indices in the trace.
    """
    if token is None:
        return
    on = on_canvas(request)
    on.forget(f"chart {chart}")  # each click counts, also on the same point again
    on.select(f"chart {chart}", token, site)


def select_cell(request: Request, trace: Trace, chart: str) -> None:
    """Let a click on a cell of a map, as ``cell_map`` draws it, select its token and site."""
    point = clicked_point(chart)
    if point is not None:
        row, token = (int(each) for each in point["at"])
        sites = trace.sites.filter(unit=units(trace)[int(point["curve"])])
        select_clicked(request, chart, token, int(sites["site"][row]))
