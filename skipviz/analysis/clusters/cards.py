"""What the tokens of each cluster have in common: their figures, classes, and some in context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from skipviz.analysis.one_model import traces_of_one_model
from skipviz.analysis.tokens.characters import text_around
from skipviz.analysis.tokens.classes import token_classes
from skipviz.analysis.tokens.covariates import covariates
from skipviz.errors import InputError
from skipviz.traces import Trace

CARD_TOKENS_AROUND = 6
"""Tokens shown before and after a typical one."""
MEAN_COLUMNS = ("layers_used", "nll", "surprisal", "position", "log_frequency")


def cluster_figures(traces: Trace | Sequence[Trace], tokens: pl.DataFrame) -> pl.DataFrame:
    """Return the size of each cluster and means over its tokens.

    Parameters
    ----------
    traces
        The texts.
    tokens
        Their clusters, ``Clusters.tokens`` or what ``Clusters.assign`` returned.

    Returns
    -------
    pl.DataFrame
        One row a cluster, then one for tokens left out, if there are any, and one for all:
        ``of``, "cluster 0", "left out" or "all tokens"; ``cluster``, null for the last two;
        ``tokens`` and their ``share``; means of ``layers_used``; of ``nll`` and ``surprisal`` in
        nats; of ``position`` in the text, from 0; of ``log_frequency`` of their words in English,
        as ``covariates`` has it. Null where no token has the figure, or wordfreq is missing.

    Raises
    ------
    ValueError
        If clusters and traces are not of the same tokens.
    """
    several = _checked(traces, tokens)
    columns = [
        trace.tokens.select(pl.col("layers_used", "nll", "surprisal", "position"))
        .cast(pl.Float64)
        .with_columns(log_frequency=_log_frequency(trace))
        for trace in several
    ]
    table = pl.concat(columns).with_columns(tokens["cluster"])
    means = [
        pl.len().cast(pl.Int64).alias("tokens"),
        *(pl.col(name).mean() for name in MEAN_COLUMNS),
    ]
    inside = table.drop_nulls("cluster").group_by("cluster").agg(means).sort("cluster")
    left = table.filter(pl.col("cluster").is_null())
    parts = [
        inside.with_columns(of=pl.format("cluster {}", "cluster")),
        *([_whole(left, means, "left out")] if left.height else []),
        _whole(table, means, "all tokens"),
    ]
    found = pl.concat(parts, how="diagonal")
    return found.select(
        "of",
        "cluster",
        "tokens",
        (pl.col("tokens") / table.height).alias("share"),
        *MEAN_COLUMNS,
    )


def cluster_classes(
    traces: Trace | Sequence[Trace], tokens: pl.DataFrame, *, linguistic: bool = False
) -> pl.DataFrame:
    """Return which classes of tokens each cluster holds more or fewer of than the texts do.

    Parameters
    ----------
    traces
        The texts.
    tokens
        Their clusters.
    linguistic
        Whether to add parts of speech and named entities, for English, by spaCy.

    Returns
    -------
    pl.DataFrame
        One row a cluster and class: ``cluster``; ``feature`` and ``class``, as ``token_classes``
        has them; ``tokens`` of the cluster in it; their ``share`` of the cluster's tokens,
        ``share_all`` of all tokens, and ``more``, the difference, from -1 to 1.

    Raises
    ------
    ImportError
        If ``linguistic`` is asked for and spaCy or its model is missing; says what to install.
    ValueError
        If clusters and traces are not of the same tokens.
    """
    several = _checked(traces, tokens)
    classes = pl.concat([token_classes(trace, linguistic=linguistic) for trace in several])
    features = [name for name, dtype in classes.schema.items() if dtype == pl.String]
    long = (
        classes.select(features)
        .with_columns(tokens["cluster"])
        .unpivot(features, index="cluster", variable_name="feature", value_name="class")
        .drop_nulls("class")
    )
    kinds = ["feature", "class"]
    everywhere = long.group_by(kinds, maintain_order=True).agg(share_all=pl.len() / tokens.height)
    sizes = tokens.drop_nulls("cluster").group_by("cluster").agg(size=pl.len()).sort("cluster")
    counts = long.group_by("cluster", *kinds).agg(tokens=pl.len().cast(pl.Int64))
    return (
        sizes.join(everywhere, how="cross")
        .join(counts, on=["cluster", *kinds], how="left", maintain_order="left")
        .with_columns(pl.col("tokens").fill_null(0))
        .with_columns(share=pl.col("tokens") / pl.col("size"))
        .with_columns(more=pl.col("share") - pl.col("share_all"))
        .select("cluster", *kinds, "tokens", "share", "share_all", "more")
    )


def typical_tokens(
    traces: Trace | Sequence[Trace],
    tokens: pl.DataFrame,
    *,
    most: int = 8,
    seed: int = 0,
) -> pl.DataFrame:
    """Return, for each cluster, tokens near its mean profile, in context.

    Parameters
    ----------
    traces
        The texts.
    tokens
        Their clusters.
    most
        Tokens a cluster, from 1.
    seed
        Of the order of tokens that are equally near: many have the same profile.

    Returns
    -------
    pl.DataFrame
        One row per token, the nearest first, no text twice in a cluster: ``cluster``, ``trace``,
        ``token``, ``source``, ``position``, ``before``, ``text``, ``after``, ``distance``.

    Raises
    ------
    ValueError
        If clusters and traces are not of the same tokens, or ``most`` is below 1.
    """
    if most < 1:
        raise InputError(f"most={most} shows nothing; ask for at least 1 token.")
    several = _checked(traces, tokens)
    order = np.random.default_rng(seed).permutation(tokens.height)
    chosen = (
        tokens.drop("source", "sequence", "position", "text")
        .hstack(pl.concat([trace.tokens.select(WHERE) for trace in several]))
        .with_columns(order=pl.Series(order))
        .drop_nulls("cluster")
        .sort("cluster", "distance", "order")
        # One of each text: tokens such as commas would take all places.
        .unique(["cluster", "text"], keep="first", maintain_order=True)
        .group_by("cluster", maintain_order=True)
        .head(most)
    )
    contexts = [
        text_around(several[trace], token, tokens=CARD_TOKENS_AROUND)
        for trace, token in chosen["trace", "token"].rows()
    ]
    return chosen.with_columns(
        before=pl.Series([before for before, _ in contexts], dtype=pl.String),
        after=pl.Series([after for _, after in contexts], dtype=pl.String),
    ).select(
        "cluster", "trace", "token", "source", "position", "before", "text", "after", "distance"
    )


WHERE = ("source", "sequence", "position", "text")


def _checked(traces: Trace | Sequence[Trace], tokens: pl.DataFrame) -> list[Trace]:
    several = traces_of_one_model(traces)
    total = sum(len(trace) for trace in several)
    if total != tokens.height:
        raise InputError(
            f"There are clusters of {tokens.height} tokens and {total} tokens in the traces; give "
            "the clusters of these texts, as Clusters.assign returns them."
        )
    return several


def _whole(table: pl.DataFrame, means: list[pl.Expr], of: str) -> pl.DataFrame:
    return table.select(means).with_columns(of=pl.lit(of))


def _log_frequency(trace: Trace) -> pl.Series:
    try:
        return covariates(trace)["log_frequency"]
    except ImportError:
        return pl.Series([None] * len(trace), dtype=pl.Float64)
