"""Losses of documents, and what is said of their mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from skipviz.arrays import Floats
from skipviz.traces import Trace

BOOTSTRAP_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over documents with its 95% bootstrap interval, in nats per token.

    Attributes
    ----------
    mean, low, high
        The mean, and the interval's ends.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def document_losses(traced: Trace) -> Floats:
    """Return each document's mean loss in nats per token, in order."""
    means = traced.tokens.group_by("sequence", maintain_order=True).agg(pl.col("nll").mean())
    return means["nll"].to_numpy().astype(np.float64)


def estimate(losses: Floats, *, seed: int = 0) -> Estimate:
    """Return the mean over documents and its 95% percentile bootstrap interval.

    A single document has no interval: its ends are the mean.
    """
    if len(losses) == 1:
        return Estimate(*[float(losses[0])] * 3)
    interval = stats.bootstrap(
        (losses,), np.mean, n_resamples=BOOTSTRAP_RESAMPLES, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(float(losses.mean()), float(interval.low), float(interval.high))
