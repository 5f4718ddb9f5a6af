"""Thresholds at which a model realises a budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize

from skipviz.analysis.cost import realised_budget
from skipviz.arrays import Bools
from skipviz.errors import InputError
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
