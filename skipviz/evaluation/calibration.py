"""Thresholds at which a model realises a budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from skipviz.analysis.flops import realised_budget
from skipviz.analysis.gates.budget_threshold import threshold_for
from skipviz.arrays import Bools
from skipviz.errors import InputError
from skipviz.models import SkipModel, at_threshold
from skipviz.progress import Progress, no_progress, part_of
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
            progress=part_of(progress, attempt, attempts),
        )  # fmt: skip
        those = None if counted is None else counted(seen)
        excess = realised_budget(seen, counted=those) - budget
        if abs(excess) <= tolerance:
            return threshold
        threshold = threshold_for(seen, budget, counted=those)
    raise InputError(
        f"No threshold realised budget {budget} within {tolerance} in {attempts} runs; the last "
        f"was {excess:+z.4f} off. Choose a budget nearer to the one the gates were trained for."
    )
