"""How long a text or a token takes, how much that varies, and how far depth predicts it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.timing.measured import PHASES, RUNTIMES
from skipviz.arrays import Floats
from skipviz.schema import Columns

LATENCY_QUANTILES = (("p50", 0.5, 1), ("p95", 0.95, 20), ("p99", 0.99, 100))
"""Name, share, and how many times must have been taken for it to be one."""
LEAST_FOR_DEPTH = 8
"""Times from which on a line through them says something."""

LATENCY: Columns = {
    "phase": pl.String,
    "runtime": pl.String,
    "count": pl.Int64,
    **{name: pl.Float64 for name, _, _ in LATENCY_QUANTILES},
    "mean": pl.Float64,
    "variation": pl.Float64,
    "slowest": pl.Float64,
    "slowest_layers": pl.Float64,
    "layers": pl.Float64,
    "by_depth": pl.Float64,
    "seconds_per_layer": pl.Float64,
    "unexplained": pl.Float64,
}


def latencies(runs: pl.DataFrame) -> pl.DataFrame:
    """Return quantiles of the times of texts and of decoded tokens, and how predictable they are.

    The dense model runs every layer for every token, so for it depth, which is the gates', must
    explain nothing: it is the control.

    Parameters
    ----------
    runs
        As ``Cost.runs``.

    Returns
    -------
    pl.DataFrame
        One row for each phase and runtime: ``count``, times taken, over all rounds; ``p50``,
        ``p95`` and ``p99`` in seconds, per text in prefill and per token in decode, null where
        fewer than 20 or 100 times were taken; ``mean`` seconds per token; ``variation``, standard
        deviation of the seconds per token over their mean; ``slowest``, mean seconds per token of
        the slowest hundredth, and ``slowest_layers``, layers used by these, null of fewer than
        100 times, beside ``layers``, those of all; ``by_depth``, the share of the variance, 0 to
        1, that layers used explain along a line; ``seconds_per_layer``, its slope; and
        ``unexplained``, as ``variation`` of what is left. The last three are null where depth
        does not vary or fewer than 8 times were taken.
    """
    rows = []
    for phase in PHASES:
        for runtime in RUNTIMES:
            own = runs.filter(phase=phase, runtime=runtime)
            if own.height:
                rows.append({"phase": phase, "runtime": runtime, **_row(own)})
    return pl.DataFrame(rows, schema=LATENCY)


def _row(own: pl.DataFrame) -> dict[str, Any]:
    seconds = own["seconds"].to_numpy()
    each = seconds / own["tokens"].to_numpy()
    depth = own["layers_used"].to_numpy()
    row: dict[str, Any] = {"count": len(each), "mean": float(each.mean())}
    for name, share, least in LATENCY_QUANTILES:
        row[name] = float(np.quantile(seconds, share)) if len(seconds) >= least else None
    row["layers"] = None if np.isnan(depth).any() else float(depth.mean())
    if len(each) > 1:
        row["variation"] = float(each.std(ddof=1) / each.mean())
    if len(each) >= LATENCY_QUANTILES[-1][2]:
        last = np.argsort(each, kind="stable")[-(len(each) // 100) :]
        row["slowest"] = float(each[last].mean())
        row["slowest_layers"] = None if row["layers"] is None else float(depth[last].mean())
    return row | _by_depth(each, depth)


def _by_depth(each: Floats, depth: Floats) -> dict[str, float]:
    if len(each) < LEAST_FOR_DEPTH or np.isnan(depth).any() or np.ptp(depth) == 0:
        return {}
    if np.ptp(each) == 0:
        return {"by_depth": 0.0, "seconds_per_layer": 0.0, "unexplained": 0.0}
    line = stats.linregress(depth, each)
    left = each - line.intercept - line.slope * depth
    return {
        "by_depth": float(line.rvalue**2),
        "seconds_per_layer": float(line.slope),
        # Two numbers of the line were fitted.
        "unexplained": float(np.sqrt((left**2).sum() / (len(left) - 2)) / each.mean()),
    }
