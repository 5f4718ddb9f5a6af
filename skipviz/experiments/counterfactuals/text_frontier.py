"""What one text loses at each budget: the frontier of a single text."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.gates.budget_threshold import budget_range
from skipviz.experiments.counterfactuals.answering import what_if
from skipviz.models import SkipModel
from skipviz.progress import Progress, check_stop, no_progress
from skipviz.traces import Trace

FRONTIER_POINTS = 9
"""Budgets of a text's frontier."""
TEXT_FRONTIER = {
    "asked": pl.Float64,
    "realised": pl.Float64,
    "threshold": pl.Float64,
    "loss": pl.Float64,
    "kl": pl.Float64,
    "same_top": pl.Float64,
    "flop_share": pl.Float64,
}


def frontier_budgets(trace: Trace) -> list[float]:
    """Return budgets at equal steps between skipping and running all that has a gate.

    Parameters
    ----------
    trace
        A trace of learned gates.
    """
    least, most = budget_range(trace)
    inner = np.linspace(least, most, FRONTIER_POINTS + 2)[1:-1]
    return [round(float(budget), 3) for budget in inner]


def text_frontier(
    model: SkipModel,
    trace: Trace,
    *,
    each: Callable[[dict[str, Any]], None] = lambda point: None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return what a text loses at several budgets, by one threshold for all sites.

    Parameters
    ----------
    model, trace
        As of ``what_if``.
    each
        Called with each point as it is found, the largest budget first.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    pl.DataFrame
        One row per budget, ascending: ``asked`` and ``realised``, 0 to 1; ``threshold``;
        ``loss`` in nats per token; ``kl``, the mean divergence from the traced predictions, in
        nats; ``same_top``, the share of tokens with the same most likely next token; and
        ``flop_share``, of the dense model's FLOPs, 0 to 1.

    Raises
    ------
    InputError
        If the model has no single threshold.
    Stopped
        If ``stop`` was set.
    """
    budgets = frontier_budgets(trace)
    points = []
    for number, budget in enumerate(reversed(budgets)):
        check_stop(stop)

        def part(share: float, number: int = number) -> None:
            progress((number + share) / len(budgets))

        answer = what_if(model, trace, budget=budget, progress=part, stop=stop)
        points.append(_point(answer, asked=budget))
        each(points[-1])
    return pl.DataFrame(points, schema=TEXT_FRONTIER).sort("asked")


def _point(answer: WhatIf, *, asked: float) -> dict[str, Any]:
    """Return the answer to a budget as a point of the frontier."""
    now = answer.costs[1]
    return {
        "asked": asked,
        "realised": now.budget,
        "threshold": float(answer.trace.matrix("threshold")[0, 0]),
        "loss": now.loss,
        "kl": float(answer.kl.mean()),
        "same_top": float(answer.same_top.mean()),
        "flop_share": now.flop_share,
    }
