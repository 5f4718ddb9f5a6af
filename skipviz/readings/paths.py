"""The page of skip paths in sentences."""

from __future__ import annotations

from skipviz.analysis.flops import CostSummary
from skipviz.readings.budgets import budget_reading
from skipviz.traces import Trace


def cost_reading(trace: Trace, figures: CostSummary) -> str:
    """Say how many layers were used, what that costs, and whether the budget was met.

    Parameters
    ----------
    trace
        The trace.
    figures
        What ``skipviz.analysis.flops.cost_summary`` returned for it.
    """
    if not trace.sites.height:
        return f"This model has no gates: every token used all {figures.layers} layers."
    said = f"Tokens used {figures.layers_mean:.1f} of {figures.layers} layers on average. "
    if figures.flop_share is None:
        return f"{said}What that saves is unknown, because the FLOPs of this model are."
    said += f"The decisions need {figures.flop_share:.1%} of the dense model's FLOPs."
    missed = budget_reading(trace)
    return f"{said} **{missed[0]}**" if missed else said


def token_reading(trace: Trace, token: int) -> str:
    """Say how far a token went, and how well the next one was predicted.

    Parameters
    ----------
    trace
        The trace.
    token
        Which token.
    """
    row = trace.tokens.row(token, named=True)
    said = (
        f"{row['text']!r}: layers used {row['layers_used']:g}, {_depth(trace, row['exit_depth'])}"
    )
    return said if row["nll"] is None else f"{said}, loss on the next token {row['nll']:.2f} nats"


def _depth(trace: Trace, layer: int | None) -> str:
    if layer is None:
        return "no gated layer ran"
    # A token that left has its state carried up to keys and values: the mark of early exits.
    if not (trace.sites["kv"] == "propagated").any():
        return f"deepest gated layer that ran {layer}"
    last = trace.run["layers"].item() - 1
    return f"ran to the last layer, {last}" if layer == last else f"left after layer {layer}"
