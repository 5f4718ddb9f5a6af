"""The classes that a model predicts of texts which it reads as a whole."""

from __future__ import annotations

import polars as pl

from skipviz.traces import Trace


def predicted_classes(trace: Trace) -> pl.DataFrame:
    """Return which class was predicted of each text.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    pl.DataFrame
        A row per text, or per window where windows of a text were given other classes: ``source``;
        ``sequence``; ``first_token`` and ``tokens``, where it begins in the trace and how many it
        has; ``class_label`` and ``class_prob``, null where unknown; ``layers_used``, the mean of
        its tokens. No rows where no class is known of any text.
    """
    tokens = trace.tokens
    if tokens["class_label"].null_count() == tokens.height:
        return _by_text(tokens.clear())
    return _by_text(tokens)


def _by_text(tokens: pl.DataFrame) -> pl.DataFrame:
    told = pl.struct("sequence", "class_label", "class_prob").rle_id()
    return (
        tokens.group_by(told.alias("text"), maintain_order=True)
        .agg(
            pl.col("source", "sequence").first(),
            pl.col("token").first().alias("first_token"),
            pl.len().cast(pl.Int64).alias("tokens"),
            pl.col("class_label", "class_prob").first(),
            pl.col("layers_used").mean().cast(pl.Float64),
        )
        .drop("text")
    )
