"""Many tests at once: which of their findings may be believed."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

FALSE_DISCOVERY_RATE = 0.05
"""Share of false ones among the findings that are named, wherever many tests are made."""


def with_q_values(table: pl.DataFrame, *, p: str = "p") -> pl.DataFrame:
    """Add ``q``, the p-value after Benjamini and Hochberg over the whole table.

    Parameters
    ----------
    table
        One row a test; those whose p is missing are not counted.
    p
        The column of p-values.
    """
    values = table[p].to_numpy().astype(np.float64)
    tested = np.isfinite(values)
    q = np.full(len(values), np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(values[tested], method="bh")
    return table.with_columns(q=pl.Series(q, dtype=pl.Float64))


def correlation_found() -> pl.Expr:
    """Return whether a coefficient of a table differs from 0, false where that is unknown.

    What is tested is the coefficient without slow changes along a text, ``r_detrended``; where they
    turn the sign of ``r``, that it differs from 0 says nothing of ``r``.
    """
    same_sign = pl.col("r").sign() == pl.col("r_detrended").sign()
    return ((pl.col("q") <= FALSE_DISCOVERY_RATE) & same_sign).fill_null(False)
