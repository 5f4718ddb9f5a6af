"""The worst case: the tails of layers used and of loss, and where skipping hurts most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.tokens.characters import text_around
from skipviz.errors import InputError
from skipviz.traces import Trace

QUANTILES = (0.5, 0.95, 0.99)
WORST_PLACES = 20
"""Places to show, if nothing else is asked."""
CONTEXT_TOKENS = 24
"""Tokens of text to show on each side of one."""


def over_dense(trace: Trace, dense: Trace) -> pl.DataFrame:
    """Return what skipping costs each token: its loss over that of the dense model.

    Parameters
    ----------
    trace
        A trace with losses.
    dense
        A trace of the same tokens by its backbone.

    Returns
    -------
    pl.DataFrame
        One row per token whose next one is known: ``token``, ``source``, ``sequence``,
        ``position``; ``text`` and ``next``, it and the token that follows; ``layers_used``;
        ``nll`` and ``dense_nll``, loss on the token that follows, and ``over_dense``, the first
        less the second, all in nats.

    Raises
    ------
    TraceError
        If the traces are not of the same tokens.
    ValueError
        If one of them was recorded without losses, or no token has a next one.
    """
    difference = trace - dense
    following = trace.tokens["text"].shift(-1)
    rows = trace.tokens.select(
        "token",
        "source",
        "sequence",
        "position",
        "text",
        following.alias("next"),
        "layers_used",
        "nll",
        dense.tokens["nll"].alias("dense_nll"),
        difference["nll"].alias("over_dense"),
    ).drop_nulls("over_dense")
    if rows.is_empty():
        raise InputError(
            "There are no losses to compare; trace a text of two tokens or more, with statistics."
        )
    return rows


def tails(trace: Trace, costs: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return quantiles of layers used and of loss by document.

    Parameters
    ----------
    trace
        The trace.
    costs
        What ``over_dense`` returned for it; without, there is nothing about the dense model.

    Returns
    -------
    pl.DataFrame
        One row per document, in order: ``sequence``, ``source``, ``tokens``; then for
        ``layers_used``, for ``nll`` in nats and, with ``costs``, for ``over_dense`` in nats the
        ``_mean`` and the quantiles ``_p50``, ``_p95`` and ``_p99`` of its tokens, between values
        as NumPy has it. The last hundredth of a document of fewer than 100 tokens begins
        between its two highest. Null where there are no losses.
    """
    figures = ["layers_used", "nll"]
    rows = trace.tokens.select("token", "sequence", "source", *figures)
    if costs is not None:
        figures.append("over_dense")
        rows = rows.join(
            costs.select("token", "over_dense"), on="token", how="left", maintain_order="left"
        )
    return rows.group_by("sequence", maintain_order=True).agg(
        pl.col("source").first(), pl.len().cast(pl.Int64).alias("tokens"), *tail_figures(figures)
    )


def tail_figures(figures: Sequence[str]) -> list[pl.Expr]:
    """Return the mean and the ``QUANTILES`` of columns, as ``tails`` names them."""
    return [
        each
        for name in figures
        for each in (
            pl.col(name).cast(pl.Float64).mean().alias(f"{name}_mean"),
            *(
                pl.col(name)
                .cast(pl.Float64)
                .quantile(share, interpolation="linear")
                .alias(f"{name}_p{round(100 * share)}")
                for share in QUANTILES
            ),
        )
    ]


def worst_places(
    trace: Trace, costs: pl.DataFrame, *, most: int = WORST_PLACES, around: int = CONTEXT_TOKENS
) -> pl.DataFrame:
    """Return where skipping hurts most, each place with the text around it.

    These are not the worst tokens: of tokens of one text that lie within ``around`` of each other
    only the worst is a place, so that one bad passage does not fill the table. A token beside a
    place may cost more than the next place; ``costs`` has every token.

    Parameters
    ----------
    trace
        The trace.
    costs
        What ``over_dense`` returned for it.
    most
        How many places at most.
    around
        Tokens to show on each side, and how far apart places of one text are at least.

    Returns
    -------
    pl.DataFrame
        Rows of ``costs``, the worst first, with ``before``, the text up to the token and with it,
        and ``after``, the text behind the token that follows. Only places where skipping costs
        anything.

    Raises
    ------
    ValueError
        If ``most`` or ``around`` is below 1.
    """
    if most < 1 or around < 1:
        raise InputError(f"most={most} and around={around} must both be at least 1.")
    chosen: list[dict[str, Any]] = []
    taken: set[tuple[int, int]] = set()
    losing = costs.filter(pl.col("over_dense") > 0).sort(
        "over_dense", descending=True, maintain_order=True
    )
    for row in losing.iter_rows(named=True):
        if len(chosen) == most:
            break
        sequence, position = row["sequence"], row["position"]
        if (sequence, position) not in taken:
            before, after = text_around(trace, row["token"] + 1, tokens=around)
            chosen.append(row | {"before": before, "after": after})
            taken |= {(sequence, position + step) for step in range(-around, around + 1)}
    return pl.DataFrame(chosen, schema=costs.schema | {"before": pl.String, "after": pl.String})


def cost_of_worst(costs: pl.DataFrame, *, share: float = 0.01) -> tuple[int, float, float]:
    """Return how much of what skipping costs lies with the worst tokens.

    Parameters
    ----------
    costs
        What ``over_dense`` returned.
    share
        Share of tokens that are the worst, 0 to 1.

    Returns
    -------
    tuple
        How many tokens those are, at least one; the mean over dense of all tokens in nats; and
        what it would be if the worst cost nothing.
    """
    values = np.sort(costs["over_dense"].to_numpy().astype(np.float64))
    count = max(1, round(share * len(values)))
    return count, float(values.mean()), float(values[:-count].sum() / len(values))
