"""Losses of documents, and what is said of their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.statistics.intervals import student_margin
from skipviz.arrays import Floats
from skipviz.traces import Trace

BOOTSTRAP_RESAMPLES = 10_000
BOOTSTRAP_DOCUMENTS = 50
"""From how many documents a bootstrap's intervals hold; of fewer, Student's t is used."""


@dataclass(frozen=True)
class Estimate:
    """A mean over documents with its 95% interval, in nats per token.

    Attributes
    ----------
    mean, low, high
        The mean, and the interval's ends; None where a single document says nothing of others.
    """

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f} (no interval: one document)"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def document_losses(traced: Trace) -> Floats:
    """Return each document's mean loss in nats per token, in order."""
    means = traced.tokens.group_by("sequence", maintain_order=True).agg(pl.col("nll").mean())
    return means["nll"].to_numpy().astype(np.float64)


def estimate(losses: Floats, *, seed: int = 0) -> Estimate:
    """Return the mean over documents and its 95% interval.

    Percentile bootstrap, and Student's t of few documents, of which a bootstrap's are too narrow:
    ``benchmarks/intervals.py`` prints how often each covers the truth. A single document has none.
    """
    mean = float(losses.mean())
    if len(losses) < 2:
        return Estimate(mean, None, None)
    if len(losses) < BOOTSTRAP_DOCUMENTS:
        margin = student_margin(float(stats.sem(losses)), len(losses))
        return Estimate(mean, mean - margin, mean + margin)
    interval = stats.bootstrap(
        (losses,), np.mean, n_resamples=BOOTSTRAP_RESAMPLES, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))
