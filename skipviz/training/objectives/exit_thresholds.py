"""Thresholds at which early exits realise budgets, for each of their rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize

from skipviz.analysis.flops import realised_budget
from skipviz.budgets import Budgets
from skipviz.families.exits.modules import ExitRule
from skipviz.families.exits.settings import ExitAt
from skipviz.models import SkipModel
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace


def calibrate_exits(
    model: SkipModel,
    documents: Sequence[Document],
    rule: ExitRule,
    budgets: Sequence[float],
    *,
    tolerance: float = 0.004,
    attempts: int = 4,
) -> Budgets[float]:
    """Find the thresholds at which early exits realise budgets.

    One run in which no token leaves gives every score. What a threshold would come to by these is
    compared with what it does come to, and the aim is moved by the difference until it is met.

    Parameters
    ----------
    model
        A model with exits.
    documents
        Calibration texts; never those that are reported on.
    rule
        ``confidence``, ``entropy`` or ``patience``. Patience counts exits: it takes whole
        numbers, and the budgets below 1 that these come to instead of those asked for.
    budgets
        The budgets to realise, where the rule can.
    tolerance, attempts
        How near is near enough, and runs for each budget, at most.

    Returns
    -------
    Budgets
        Threshold by budget; budgets out of reach, or not met in so many runs, are left out.
    """

    def run(threshold: float) -> Trace:
        return trace(model.under(ExitAt(rule, threshold)), documents, statistics=False)

    if rule == "patience":
        by_count = {
            float(count): round(realised_budget(run(float(count))), 2)
            for count in range(1, len(model.model.exits.stays))
        }
        # Of counts that come to the same budget, the first says it. Where tokens stay long,
        # translators cost more than leaving saves.
        return Budgets({b: count for count, b in reversed(by_count.items()) if b < 1})
    full_depth = run(np.inf if rule == "confidence" else -np.inf)
    scores = full_depth.matrix("score")
    bounds = (float(scores.min()), float(scores.max()))
    found: dict[float, float] = {}
    for budget in budgets:
        aim = budget
        for _ in range(attempts):
            if not _reaches(full_depth, rule, bounds, aim):
                break
            threshold = float(
                optimize.brentq(
                    lambda level, aim=aim: realised_budget(leaving(full_depth, rule, level)) - aim,
                    *bounds,
                    xtol=1e-5,
                )
            )
            excess = realised_budget(run(threshold)) - budget
            if abs(excess) <= tolerance:
                found[budget] = threshold
                break
            aim -= excess
    return Budgets(found)


def leaving(full_depth: Trace, rule: ExitRule, threshold: float) -> Trace:
    """Return what a threshold would do if no score changed with it.

    Parameters
    ----------
    full_depth
        A trace of early exits in which no token left.
    rule, threshold
        ``confidence`` or ``entropy``, and its threshold.
    """
    score = full_depth.matrix("score")
    stays = score >= threshold if rule == "entropy" else score < threshold
    inside = np.logical_and.accumulate(stays, axis=1)
    asked = np.ones_like(inside)
    asked[:, 1:] = inside[:, :-1]
    left = {
        "exec_count": inside.astype(np.uint8),
        "score": np.where(asked, score, np.float32(np.nan)),
    }
    return replace(full_depth, matrices={**full_depth.matrices, **left})


def _reaches(full_depth: Trace, rule: ExitRule, bounds: tuple[float, float], aim: float) -> bool:
    ends = [realised_budget(leaving(full_depth, rule, level)) for level in bounds]
    return min(ends) < aim < max(ends)
