"""An analysis of its own: how many tokens in a row skip each site."""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.traces import Trace


def skip_runs(trace: Trace) -> pl.DataFrame:
    """Return the longest run of tokens that skip each site.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    pl.DataFrame
        One row per site: ``site``, ``layer``, ``unit``; ``tokens``, the most tokens of one text in
        a row that skip it.
    """
    sequence = trace.tokens["sequence"].to_numpy()
    follows = np.concatenate([[False], sequence[1:] == sequence[:-1]])
    longest = running = np.zeros(trace.sites.height, dtype=np.int64)
    for same, skipped in zip(follows, trace.matrix("exec_count") == 0, strict=True):
        running = np.where(skipped, running * same + 1, 0)
        longest = np.maximum(longest, running)
    return trace.sites.select("site", "layer", "unit").with_columns(
        tokens=pl.Series(longest, dtype=pl.Int64)
    )
