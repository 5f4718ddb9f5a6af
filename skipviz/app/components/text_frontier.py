"""The budget of a question, on the frontier of the text itself."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from skipviz import plots
from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.flops import realised_budget
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.jobs import Request
from skipviz.app.state import state
from skipviz.experiments.counterfactuals.text_frontier import (
    TEXT_FRONTIER,
    frontier_budgets,
    text_frontier,
)
from skipviz.readings.glossary import GLOSSARY
from skipviz.traces import Trace

FRONTIER_RUN = "text frontier"
NEAR = 0.01
"""A budget that is nearer to what the text came to is not worth a question."""


def choose_budget(request: Request, traced: Trace, *, latest: WhatIf | None) -> float:
    """Let a budget be chosen, and draw the text's frontier where that was asked for.

    Parameters
    ----------
    request, traced
        The text.
    latest
        The answer to mark on the frontier.
    """
    budgets = frontier_budgets(traced)
    came_to = realised_budget(traced)
    less = max((each for each in budgets if each < came_to - NEAR), default=budgets[0])
    chosen = st.select_slider(
        "Budget that this text is to come to", budgets, value=less, key="what if budget",
        help=f"{GLOSSARY['budget']} One threshold for all sites is set on this text.",
    )  # fmt: skip
    points: list[dict[str, Any]] = jobs().made(f"frontier points {request.key}", list)
    done = tried(
        FRONTIER_RUN,
        "Draw this text's frontier",
        request,
        lambda: jobs().experiment(
            request,
            FRONTIER_RUN,
            lambda model, progress, stop: text_frontier(
                model, traced, each=points.append, progress=progress, stop=stop
            ),
        ),
    )
    run = state().runs.get(FRONTIER_RUN)
    if done is None and run is not None and run.under_way:
        _growing(traced, points, latest)
    elif done is not None:
        _draw(traced, done, latest)
    elif points:
        _draw(traced, pl.DataFrame(points, schema=TEXT_FRONTIER), latest)
    return float(chosen)


def frontier_drawn(request: Request) -> bool:
    """Say whether the whole frontier of a text is drawn."""
    run = state().runs.get(FRONTIER_RUN)
    shown = None if run is None else run.finished
    return shown is not None and shown.request.key == request.key


@st.fragment(run_every=1.0)
def _growing(traced: Trace, points: list[dict[str, Any]], latest: WhatIf | None) -> None:
    """Draw the points that are there so far."""
    if points:
        _draw(traced, pl.DataFrame(list(points), schema=TEXT_FRONTIER), latest)


def _draw(traced: Trace, points: pl.DataFrame, latest: WhatIf | None) -> None:
    unique = points.unique("asked", keep="last")
    st.plotly_chart(
        plots.text_frontier_figure(traced, unique, chosen=latest), key="what if frontier"
    )
