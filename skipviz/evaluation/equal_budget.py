"""Losses at equal budget: on the same documents, at the same budget realised.

Policies seldom realise what was asked of them, and a hundredth of the budget is worth some
hundredths of a nat. So a loss at a budget is taken between the two budgets that a policy was
measured at and that enclose it, all as realised, which is a mean over documents as the loss is; the
dense model is budget 1. A frontier bends downwards, so that the straight line between two of its
points lies above it: a loss at a budget is stated a little too high, never too low.
"""

from __future__ import annotations

import itertools

import polars as pl

from skipviz.arrays import Floats

MET = 0.005
"""How near a budget realised is the one asked for: as near as calibration comes to it."""
Points = list[tuple[float, Floats]]
"""Budgets realised, in order, each with the loss of every document."""


def over_learned(part: pl.DataFrame, measured: pl.DataFrame) -> Floats | None:
    """Return a candidate's loss over that of learned gates at equal budget, by document.

    Parameters
    ----------
    part
        One candidate's rows of what ``measure`` returned.
    measured
        All of it. The learned gates are the first that were measured.

    Returns
    -------
    array or None
        Nats per token, in the order of ``part``; None if there are no learned gates on these
        documents, or the budget lies outside of theirs.
    """
    learned = measured.filter(policy="learned")
    if learned.is_empty() or part["policy"][0] == "dense":
        return None
    first = learned.filter(model=learned["model"][0])
    points = _points(part, pl.concat([first, measured.filter(policy="dense")]))
    at_equal = _loss_at(_realised(part), points)
    return None if at_equal is None else part["nll"].to_numpy() - at_equal


def gap_at_asked(part: pl.DataFrame, measured: pl.DataFrame) -> Floats | None:
    """Return what a candidate loses over dense at exactly the budget asked for, by document.

    Parameters
    ----------
    part
        One candidate's rows of what ``measure`` returned.
    measured
        All of it: the same model under the same policy at other budgets, and the dense model.

    Returns
    -------
    array or None
        Nats per token, in the order of ``part``: as measured, where the budget asked for is
        realised within 0.005, and otherwise between the neighbours that enclose it. None if no
        budget was asked for, none enclose it, or there is no dense model on these documents.
    """
    asked = part["budget"][0]
    dense = _nll(part, measured.filter(policy="dense"))
    if asked is None or dense is None:
        return None
    if abs(_realised(part) - asked) <= MET:
        measured_gap: Floats = part["nll"].to_numpy() - dense
        return measured_gap
    same = (pl.col("model") == part["model"][0]) & (pl.col("policy") == part["policy"][0])
    points = _points(part, measured.filter(same | (pl.col("policy") == "dense")))
    at_asked = _loss_at(asked, points)
    return None if at_asked is None else at_asked - dense


def _points(part: pl.DataFrame, rows: pl.DataFrame) -> Points:
    """Return the points of a frontier that are on the documents of ``part``."""
    found: Points = []
    for _, each in rows.group_by("model", "policy", "budget", "limit", maintain_order=True):
        nll = _nll(part, each)
        if nll is not None:
            here = part.select("text_sha256").join(each, on="text_sha256", how="inner")
            found.append((_realised(here), nll))
    return sorted(found, key=lambda point: point[0])


def _nll(part: pl.DataFrame, rows: pl.DataFrame) -> Floats | None:
    """Return losses on the documents of ``part``, in its order; None if some are not there."""
    texts = part.select("text_sha256")
    here = texts.join(rows, on="text_sha256", how="inner", maintain_order="left")
    return here["nll"].to_numpy() if here.height == texts.height else None


def _loss_at(budget: float, points: Points) -> Floats | None:
    for (low, below), (high, above) in itertools.pairwise(points):
        if low <= budget <= high and low < high:
            share = (budget - low) / (high - low)
            found: Floats = (1 - share) * below + share * above
            return found
    return None


def _realised(rows: pl.DataFrame) -> float:
    return float(rows["realised"].to_numpy().mean())
