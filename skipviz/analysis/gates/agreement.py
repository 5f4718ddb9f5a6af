"""Whether shares of a loss over depth say what exact flips say."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from scipy import stats

from skipviz.errors import InputError
from skipviz.traces import Trace

SHARE_COLUMNS = {
    "token": pl.Int64,
    "site": pl.Int64,
    "label": pl.String,
    "layer": pl.Int64,
    "unit": pl.String,
    "executed": pl.Boolean,
    "share": pl.Float64,
}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far shares go with exact utilities.

    Attributes
    ----------
    cells
        How many are compared.
    rank
        Spearman's coefficient over all of them, -1 to 1; NaN where one of the two is the same
        for all.
    ran, skipped
        The same for the cells that executed and those that did not: their shares come from two
        different paths.
    same_sign
        Share of cells in which both say that executing helps, or both that it hurts, 0 to 1.
    """

    cells: int
    rank: float
    ran: float
    skipped: float
    same_sign: float


def worth_of_cells(trace: Trace, shares: pl.DataFrame) -> pl.DataFrame:
    """Return shares of a loss as what executing was worth, or would have been.

    Parameters
    ----------
    trace
        The trace whose loss was attributed.
    shares
        The table that attribution over depth of a loss returned.

    Returns
    -------
    pl.DataFrame
        One row a cell: ``token``, ``site``, ``label``, ``layer``, ``unit``, ``executed``;
        ``share``, by how many nats executing lowered the loss, or would have lowered it where the
        unit was skipped: signed like a utility; null where the shares of its path do not add up.
    """
    token, site = shares["token"].to_numpy(), shares["site"].to_numpy()
    return (
        shares.join(
            trace.sites.select("site", "label", "layer", "unit"),
            on="site",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            executed=pl.Series(trace.matrix("exec_count")[token, site] > 0),
        )
        # Each path gives shares to its own cells; one of them may have none to give.
        .with_columns(share=-pl.when("executed").then("from_skipped").otherwise("to_all"))
        .select(pl.col(name).cast(kind) for name, kind in SHARE_COLUMNS.items())
        .sort("token", "site")
    )


def beside_flips(cells: pl.DataFrame, flips: pl.DataFrame) -> pl.DataFrame:
    """Return the cells that were flipped too, with what the flip says.

    Parameters
    ----------
    cells
        What ``worth_of_cells`` returned.
    flips
        Exact flips that count for the same loss.

    Returns
    -------
    pl.DataFrame
        ``cells`` with ``utility`` and ``difference`` = share - utility, in nats; those that have a
        share.
    """
    known = cells.drop_nulls("share")
    return known.join(flips.select("token", "site", "utility"), on=["token", "site"]).with_columns(
        difference=pl.col("share") - pl.col("utility")
    )


def agreement(compared: pl.DataFrame) -> Agreement:
    """Return how far shares and utilities agree.

    Parameters
    ----------
    compared
        What ``beside_flips`` returned, of at least one cell.

    Raises
    ------
    ValueError
        If there is no cell.
    """
    if compared.is_empty():
        raise InputError("There are 0 cells to compare; flip some of those that have shares.")
    same = (compared["share"] > 0) == (compared["utility"] > 0)
    return Agreement(
        cells=compared.height,
        rank=_spearman(compared),
        ran=_spearman(compared.filter("executed")),
        skipped=_spearman(compared.filter(~pl.col("executed"))),
        same_sign=float(same.to_numpy().mean()),
    )


def _spearman(cells: pl.DataFrame) -> float:
    if cells.height < 3 or min(cells["share"].n_unique(), cells["utility"].n_unique()) < 2:
        return float("nan")
    return float(stats.spearmanr(cells["share"], cells["utility"]).statistic)
