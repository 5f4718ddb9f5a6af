"""Thresholds at which a model realises a budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize

from skipviz.analysis.flops import realised_budget
from skipviz.arrays import Bools
from skipviz.budgets import Budgets
from skipviz.errors import InputError
from skipviz.families.exits.modules import ExitRule
from skipviz.families.exits.settings import ExitAt
from skipviz.models import SkipModel, at_threshold
from skipviz.progress import Progress, no_progress
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.traces import Trace


def calibrate(
    gated: SkipModel,
    documents: Sequence[Document],
    *,
    budget: float,
    start: float = 0.0,
    tolerance: float = 0.002,
    attempts: int = 8,
    counted: Callable[[Trace], Bools] | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> float:
    """Find the threshold at which the model realises a budget on the documents.

    Parameters
    ----------
    gated
        A model of learned gates; it stays as it is.
    documents
        Calibration texts; never those that are reported on.
    budget
        The budget to realise.
    start
        The threshold to try first, such as the one that training ended with.
    tolerance
        How near is near enough.
    attempts
        Runs over the documents, at most.
    counted
        Tells which tokens of a trace of the documents the budget is of, as [tokens] of booleans;
        all of them if None.
    progress
        Called with the share of the most work that there may be, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    ValueError
        If the budget is not reached in that many runs.
    Stopped
        If ``stop`` was set.
    """
    threshold = start
    for attempt in range(attempts):
        seen = trace(
            at_threshold(gated, threshold), documents, statistics=False, stop=stop,
            progress=_part(progress, attempt, attempts),
        )  # fmt: skip
        those = None if counted is None else counted(seen)
        excess = realised_budget(seen, counted=those) - budget
        if abs(excess) <= tolerance:
            return threshold
        threshold = threshold_for(seen, budget, counted=those)
    raise InputError(
        f"No threshold realised budget {budget} within {tolerance} in {attempts} runs; the last "
        f"was {excess:+.4f} off. Choose a budget nearer to the one the gates were trained for."
    )


def _part(progress: Progress, number: int, count: int) -> Progress:
    return lambda share: progress((number + share) / count)


def threshold_for(seen: Trace, budget: float, *, counted: Bools | None = None) -> float:
    """Return the threshold that would realise the budget if no score changed with it.

    Scores do change, downstream of other decisions, so the caller runs again and looks.

    Parameters
    ----------
    seen
        A trace of learned gates.
    budget
        The budget to realise.
    counted
        True for each token that the budget is of, of shape [tokens]; all of them if None.

    Raises
    ------
    ValueError
        If running or skipping everything does not get there.
    """
    score = seen.matrix("score")

    def excess(threshold: float) -> float:
        executed = (score > threshold).astype(np.uint8)
        decided = replace(seen, matrices={**seen.matrices, "exec_count": executed})
        return realised_budget(decided, counted=counted) - budget

    low, high = float(score.min()) - 1, float(score.max())
    if not excess(high) <= 0 <= excess(low):
        raise InputError(
            f"Budget {budget} is out of reach: skipping all leaves {excess(high) + budget:.3f} "
            f"and running everything {excess(low) + budget:.3f}. Choose one in between."
        )
    # Scores have no scale of their own: as near as their float32 tells apart.
    near = float(np.finfo(np.float32).eps) * (high - low)
    return float(optimize.brentq(excess, low, high, xtol=near))


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
