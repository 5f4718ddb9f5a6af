"""What learned gates would lose at a budget that another policy realised."""

from __future__ import annotations

import itertools

import polars as pl

from skipviz.arrays import Floats


def over_learned(part: pl.DataFrame, measured: pl.DataFrame) -> Floats | None:
    """Return a candidate's loss over that of learned gates at equal budget, by document.

    Policies seldom realise what was asked of them, and a hundredth of the budget is worth some
    hundredths of a nat. So the learned gates' loss is taken between the two budgets they were
    measured at that enclose the candidate's, all as realised, which is a mean over documents as
    the loss is; the dense model is budget 1. A
    frontier bends downwards, so that the straight line between two of its points lies above it:
    the learned gates are held to a little more than they lose.

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
    texts = part.select("text_sha256")
    points = []
    for _, rows in pl.concat([first, measured.filter(policy="dense")]).group_by(
        "model", "budget", maintain_order=True
    ):
        here = texts.join(rows, on="text_sha256", how="inner", maintain_order="left")
        if here.height == texts.height:
            points.append((_realised(here), here["nll"].to_numpy()))
    points.sort(key=lambda point: point[0])
    budget, nll = _realised(part), part["nll"].to_numpy()
    for (low, below), (high, above) in itertools.pairwise(points):
        if low <= budget <= high and low < high:
            share = (budget - low) / (high - low)
            found: Floats = nll - ((1 - share) * below + share * above)
            return found
    return None


def _realised(rows: pl.DataFrame) -> float:
    return float(rows["realised"].to_numpy().mean())
