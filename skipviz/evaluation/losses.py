"""Losses of documents, and what is said of their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.statistics.intervals import UNBOUNDED, Bounds, student_margin
from skipviz.arrays import Floats
from skipviz.traces import Trace

BOOTSTRAP_RESAMPLES = 10_000
BOOTSTRAP_DOCUMENTS = 100
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
            return f"{self.mean:z.3f} (no interval: one document)"
        return f"{self.mean:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"


def document_losses(traced: Trace) -> Floats:
    """Return each document's mean loss in nats per token, in order."""
    means = traced.tokens.group_by("sequence", maintain_order=True).agg(pl.col("nll").mean())
    return means["nll"].to_numpy().astype(np.float64)


def estimate(losses: Floats, *, seed: int = 0, bounds: Bounds = UNBOUNDED) -> Estimate:
    """Return the mean over documents and its 95% interval.

    Percentile bootstrap, and Student's t of few documents, of which a bootstrap's are too narrow.
    Losses are skewed, and few documents seldom show the tail; so Student's reaches further on its
    side, by as much as the skewness moves the mean's quantile (Johnson, "Modified t tests and
    confidence intervals for asymmetrical populations", 1978). ``benchmarks/intervals.py`` prints
    how often each covers the truth. A single document has none. Ends keep to the ``bounds`` of what
    is estimated.
    """
    mean = float(losses.mean())
    if len(losses) < 2:
        return Estimate(mean, None, None)
    if len(losses) < BOOTSTRAP_DOCUMENTS:
        error, count = float(stats.sem(losses)), len(losses)
        margin = student_margin(error, count)
        skew = float(stats.skew(losses)) if error > 1e-12 * max(1.0, abs(mean)) else 0.0
        t = float(stats.t.ppf(0.975, count - 1))
        further = skew * error * (1 + 2 * t * t) / (6 * np.sqrt(count))
        ends = (mean - margin + min(further, 0.0), mean + margin + max(further, 0.0))
        return Estimate(mean, *(float(np.clip(end, *bounds)) for end in ends))
    interval = stats.bootstrap(
        (losses,), np.mean, n_resamples=BOOTSTRAP_RESAMPLES, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))
