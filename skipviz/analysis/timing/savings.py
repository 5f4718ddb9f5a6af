"""Time saved over work saved: how much of what the decisions allow arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.timing.measured import PHASES, RUNTIMES
from skipviz.arrays import Floats
from skipviz.schema import Columns

LEAST_SAVED = 0.01
"""Share of the work below which time saved over work saved means nothing."""

SAVINGS: Columns = {
    "phase": pl.String,
    "runtime": pl.String,
    "rounds": pl.Int64,
    "dense_seconds": pl.Float64,
    "seconds": pl.Float64,
    "time_saved": pl.Float64,
    "time_saved_low": pl.Float64,
    "time_saved_high": pl.Float64,
    "flops_saved": pl.Float64,
    "bytes_saved": pl.Float64,
    "over_flops": pl.Float64,
    "over_flops_low": pl.Float64,
    "over_flops_high": pl.Float64,
    "over_bytes": pl.Float64,
    "over_bytes_low": pl.Float64,
    "over_bytes_high": pl.Float64,
}


@dataclass(frozen=True, kw_only=True)
class WorkSaved:
    """Share of the dense work that decisions save in a phase, at most 1; None: unknown.

    Attributes
    ----------
    flops
        Of the FLOPs.
    weights
        Of the bytes of weights that are read; None for a prefill, which reads all of them.
    """

    flops: float | None
    weights: float | None = None


def savings(runs: pl.DataFrame, work: Mapping[str, WorkSaved]) -> pl.DataFrame:
    """Return the time that each runtime saves over the dense model, and its part of the work saved.

    Runs alternate, so each round gives a ratio of its own. A figure is the median over rounds; its
    95% interval is that of a median by the sign test, and null where there are too few rounds for
    one (fewer than 6).

    Parameters
    ----------
    runs
        As ``Cost.runs``.
    work
        What the decisions save, by phase.

    Returns
    -------
    pl.DataFrame
        One row for each phase and runtime but the dense one: ``rounds``; ``dense_seconds`` and
        ``seconds``, medians over rounds of the time of all texts, per token in decode;
        ``time_saved``, the share of the dense time, below 0 where it takes longer;
        ``flops_saved`` and ``bytes_saved``; ``over_flops`` and ``over_bytes``, time saved over
        them, null where less than a hundredth is saved or it is not known; each with ``_low`` and
        ``_high``.
    """
    rows = []
    for phase in PHASES:
        seconds = _of_rounds(runs, phase)
        if "dense" not in seconds:
            continue
        saved = work.get(phase, WorkSaved(flops=None))
        for runtime in RUNTIMES[1:]:
            if runtime in seconds:
                dense, own = seconds["dense"], seconds[runtime]
                rows.append({"phase": phase, "runtime": runtime, **_row(dense, own, saved)})
    return pl.DataFrame(rows, schema=SAVINGS)


def median_interval(values: Floats) -> tuple[float, float | None, float | None]:
    """Return the median and its 95% interval by the sign test, None where values are too few.

    Parameters
    ----------
    values
        At least one, independent of each other.
    """
    middle = float(np.median(values))
    if len(values) < 2:
        return middle, None, None
    found = stats.quantile_test(values, q=middle, p=0.5).confidence_interval(confidence_level=0.95)
    if np.isnan(found.low) or np.isnan(found.high):
        return middle, None, None
    return middle, float(found.low), float(found.high)


def _of_rounds(runs: pl.DataFrame, phase: str) -> dict[str, Floats]:
    """Return, for each runtime, the mean seconds per time taken in each round."""
    rounds = (
        runs.filter(phase=phase)
        .group_by("runtime", "round")
        .agg(pl.col("seconds").mean())
        .sort("runtime", "round")
    )
    return {
        str(runtime): rows["seconds"].to_numpy()
        for (runtime,), rows in rounds.group_by("runtime", maintain_order=True)
    }


def _row(dense: Floats, own: Floats, saved: WorkSaved) -> dict[str, Any]:
    shares = 1.0 - own / dense
    row: dict[str, Any] = {
        "rounds": len(shares),
        "dense_seconds": float(np.median(dense)),
        "seconds": float(np.median(own)),
        "flops_saved": saved.flops,
        "bytes_saved": saved.weights,
    }
    row |= _named("time_saved", shares)
    for name, share in (("over_flops", saved.flops), ("over_bytes", saved.weights)):
        if share is not None and share >= LEAST_SAVED:
            row |= _named(name, shares / share)
    return row


def _named(name: str, values: Floats) -> dict[str, float | None]:
    middle, low, high = median_interval(values)
    return {name: middle, f"{name}_low": low, f"{name}_high": high}
