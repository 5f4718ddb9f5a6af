"""The page of skip paths in sentences."""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.analysis.flops import CostSummary
from skipviz.readings.budgets import budget_reading
from skipviz.traces import Trace


def cost_reading(trace: Trace, figures: CostSummary, *, whole: bool = True) -> str:
    """Say how many layers were used, what that costs, and whether the budget was met.

    Parameters
    ----------
    trace
        The trace.
    figures
        What ``skipviz.analysis.flops.cost_summary`` returned for it.
    whole
        Whether it is of all that was traced: only then the budget asked for says what it should
        have come to.
    """
    if not trace.sites.height:
        return f"This model has no gates: every token used all {figures.layers} layers."
    said = f"Tokens used {figures.layers_mean:.1f} of {figures.layers} layers on average. "
    if figures.flop_share is None:
        return f"{said}What that saves is unknown, because the FLOPs of this model are."
    said += f"The decisions need {figures.flop_share:.1%} of the dense model's FLOPs."
    missed = budget_reading(trace) if whole else None
    return f"{said} **{missed[0]}**" if missed else said


def loss_words(trace: Trace, loss: float | None) -> str:
    """Return the mean loss as text; none is another thing than one that is not known.

    Parameters
    ----------
    trace
        The trace.
    loss
        In nats; None where there is none.
    """
    if loss is not None:
        return f"{loss:.2f} nats"
    return "none" if trace.run["loss"].item() == "none" else "unknown"


def shallowest_token(trace: Trace) -> int:
    """Return the token that used the fewest layers of those after which another comes."""
    followed = trace.tokens.filter(pl.col("nll").is_not_null())
    tokens = followed if followed.height else trace.tokens
    return int(tokens.sort("layers_used", "token")["token"][0])


def shallow_reading(trace: Trace, token: int) -> str:
    """Say how far below the mean the layers used by a token are.

    Parameters
    ----------
    trace
        The trace.
    token
        What ``shallowest_token`` returned for it.
    """
    used = trace.tokens["layers_used"]
    return (
        f"Token {token}, {trace.tokens['text'][token]!r}, used {used[token]:g} of "
        f"{trace.run['layers'].item()} layers, the fewest before another token; the mean is "
        f"{float(np.mean(used.to_numpy())):.1f}."
    )
