"""The sentence of the toy page: a frame in, text out."""

from __future__ import annotations

import polars as pl


def skip_run_reading(runs: pl.DataFrame) -> str:
    """Return which site the longest run skips.

    Parameters
    ----------
    runs
        What ``skip_runs`` returned.

    Returns
    -------
    str
        A sentence.
    """
    most = runs.sort("tokens", descending=True, maintain_order=True).row(0, named=True)
    if not most["tokens"]:
        return "Every token runs every unit."
    return (
        f"Layer {most['layer']} ({most['unit']}) is skipped by {most['tokens']:,} tokens in a row."
    )
