"""Whether tokens that are hard use more layers."""

from __future__ import annotations

import numpy as np
import polars as pl
import polars.selectors as cs

from skipviz.analysis.statistics.blocks import dependent_groups
from skipviz.analysis.statistics.correlation import PERMUTATIONS, block_correlation
from skipviz.analysis.statistics.intervals import clustered_margin
from skipviz.analysis.statistics.multiple_tests import with_q_values
from skipviz.analysis.tokens.covariates import covariates
from skipviz.progress import Progress, no_progress
from skipviz.traces import Trace

DIFFICULTIES = {
    "surprisal": "surprisal of the token (nats)",
    "entropy": "ambiguity: entropy of the prediction (nats)",
    "nll": "loss on the next token (nats)",
    "log_frequency": "frequency of the word (log10 per billion words)",
    "token_before": "token seen before in its text",
    "bigram_before": "token seen before after the same one",
}
"""What is looked at, and its name and unit in figures."""
DIFFICULTY_PARTS = 10
MIN_PART_TOKENS = 20
"""Tokens in a part, at least: fewer say nothing of a mean."""
MIN_GRADED_TOKENS = 10
"""Tokens below which nothing is said of a figure."""


def difficulty(trace: Trace) -> pl.DataFrame:
    """Return how hard each token is by several measures, and how many layers it used.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    pl.DataFrame
        One row per token: ``token``; ``sequence``, its text; ``layers_used``; ``surprisal``,
        ``entropy`` and ``nll`` in nats, null where unknown; ``log_frequency`` of its word as
        ``covariates`` gives it, null outside words; ``token_before``, whether the same token
        occurs earlier in its text, and ``bigram_before``, whether it does so after the same token
        as here.

    Raises
    ------
    ImportError
        If wordfreq is not installed; says how to install it.
    """
    before = pl.col("token_id").shift(1).over("sequence")
    columns = trace.tokens.with_columns(before=before).select(
        "token",
        "sequence",
        pl.col("layers_used").cast(pl.Float64),
        *(pl.col(name).cast(pl.Float64) for name in ("surprisal", "entropy", "nll")),
        token_before=pl.int_range(pl.len()).over("sequence", "token_id") > 0,
        bigram_before=pl.col("before").is_not_null()
        & (pl.int_range(pl.len()).over("sequence", "before", "token_id") > 0),
    )
    return columns.with_columns(covariates(trace)["log_frequency"])


def depth_against_difficulty(
    table: pl.DataFrame,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return how layers used go with each measure of difficulty.

    Of several texts, how they do so within texts, as ``block_correlation`` says.

    Parameters
    ----------
    table
        What ``difficulty`` returned.
    permutations
        Random signs that the p-values are of.
    seed
        Seed of them.
    progress
        Called with the share of the work done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        One row a measure: ``measure``, one of ``DIFFICULTIES``; ``tokens`` for which it is known;
        ``r``, Spearman's coefficient of it and layers used, -1 to 1, with its 95% interval ``low``
        to ``high``; ``withheld``, why there is no interval; ``r_detrended``, the coefficient
        without what changes slowly along a text, and ``p`` of that, as ``Correlation`` says; ``q``
        after Benjamini and Hochberg. All but the count are null where fewer than
        ``MIN_GRADED_TOKENS`` tokens have a measure, or either is the same for all.
    """
    figures: dict[str, type[pl.DataType]] = {"r": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    figures |= {"withheld": pl.String, "r_detrended": pl.Float64, "p": pl.Float64}
    rows = []
    for done, name in enumerate(DIFFICULTIES):
        progress(done / len(DIFFICULTIES))
        known = table.select("layers_used", pl.col(name).cast(pl.Float64), "sequence").drop_nulls()
        row: dict[str, str | int | float | None] = {"measure": name, "tokens": known.height}
        if known.height >= MIN_GRADED_TOKENS:
            depth, hard, documents = (column.to_numpy() for column in known)
            found = block_correlation(
                hard, depth, documents=documents, permutations=permutations, seed=seed
            )
            row |= {name: value for name, value in vars(found).items() if name in figures}
        rows.append(row)
    progress(1.0)
    schema: dict[str, type[pl.DataType]] = {"measure": pl.String, "tokens": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema | figures).with_columns(pl.col("p").fill_null(np.nan))
    return with_q_values(frame).with_columns(cs.float().fill_nan(None))


def depth_by_difficulty(table: pl.DataFrame, *, bins: int = DIFFICULTY_PARTS) -> pl.DataFrame:
    """Return layers used in equal parts of the tokens, from the easiest to the hardest.

    Parameters
    ----------
    table
        What ``difficulty`` returned.
    bins
        Parts of each measure; fewer where many tokens share a value, or parts would be of fewer
        than ``MIN_PART_TOKENS`` tokens; what holds or does not is parted by that.

    Returns
    -------
    pl.DataFrame
        One row a measure and part: ``measure``; ``part``, from 0; ``value``, the mean of the
        measure; ``tokens``; ``layers``, the mean of layers used; ``margin``, half the width of its
        95% interval over ``dependent_groups``, null for a single group.
    """
    groups = pl.Series(dependent_groups(table["sequence"].to_numpy()))
    rows = []
    for name in DIFFICULTIES:
        known = table.select(
            "layers_used", pl.col(name).cast(pl.Float64), group=groups
        ).drop_nulls()
        if known.is_empty():
            continue
        depth, hard, group = (column.to_numpy() for column in known)
        if table[name].dtype == pl.Boolean:
            edges = np.array([0.5])
        else:
            count = max(1, min(bins, known.height // MIN_PART_TOKENS))
            edges = np.unique(np.quantile(hard, np.linspace(0, 1, count + 1)[1:-1]))
        _, part = np.unique(np.searchsorted(edges, hard, side="left"), return_inverse=True)
        for number in range(part.max() + 1):
            inside = part == number
            rows.append(
                {
                    "measure": name,
                    "part": number,
                    "value": float(hard[inside].mean()),
                    "tokens": int(inside.sum()),
                    "layers": float(depth[inside].mean()),
                    "margin": clustered_margin(depth[inside], group[inside]),
                }
            )
    schema: dict[str, type[pl.DataType]] = {"measure": pl.String, "part": pl.Int64}
    schema |= {"value": pl.Float64, "tokens": pl.Int64, "layers": pl.Float64, "margin": pl.Float64}
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("margin").fill_nan(None))
