"""The page of skip paths in sentences."""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.analysis.flops import CostSummary
from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.readings.budgets import budget_reading
from skipviz.traces import Trace

MOST_NAMED = 6
"""Classes that a sentence names."""


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
    said = f"Tokens used {figures.layers_mean:z.1f} of {figures.layers} layers on average. "
    if figures.flop_share is None:
        return f"{said}What that saves is unknown, because the FLOPs of this model are."
    said += f"The decisions need {figures.flop_share:z.1%} of the dense model's FLOPs."
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
        return f"{loss:z.2f} nats"
    return "none" if trace.run["loss"].item() == "none" else "unknown"


def class_reading(trace: Trace) -> str:
    """Say which class was predicted of a text, or how many texts were given each.

    Parameters
    ----------
    trace
        Any trace. Of one whose model predicts the next token nothing is said.
    """
    classes = predicted_classes(trace)
    if classes.is_empty():
        if trace.run["loss"].item() != "none":
            return ""
        return (
            "Which class is predicted is unknown: the model gives a number or several classes at "
            "once, or the trace was made without."
        )
    if classes.height == 1:
        label, prob = classes.select("class_label", "class_prob").row(0)
        if prob is None:
            return f"The predicted class is {label}; its probability is unknown."
        return f"The predicted class is {label}, with a probability of {prob:z.1%}."
    known = classes.drop_nulls("class_label").group_by("class_label").len()
    known = known.sort("len", "class_label", descending=[True, False])
    named = [f"{label} for {count:,}" for label, count in known.head(MOST_NAMED).rows()]
    if (rest := known.slice(MOST_NAMED)).height:
        named.append(f"{rest.height:,} other classes for {rest['len'].sum():,}")
    if unknown := classes["class_label"].null_count():
        named.append(f"unknown for {unknown:,}")
    texts = trace.tokens["sequence"].n_unique()
    what = "texts" if classes.height == texts else "parts of texts, each read as a whole"
    return f"Predicted classes of {classes.height:,} {what}: {', '.join(named)}."


def class_words(trace: Trace) -> str:
    """Return the predicted class in a few words: its name, or how many there are.

    Parameters
    ----------
    trace
        Any trace.
    """
    classes = predicted_classes(trace)["class_label"]
    known = classes.drop_nulls().unique()
    if known.is_empty():
        return "unknown"
    said = str(known[0]) if len(known) == 1 else f"{len(known):,} classes"
    return f"{said}, some unknown" if classes.null_count() else said


def shallowest_token(trace: Trace) -> int:
    """Return the token that used the fewest layers, but for the first and the last of each text.

    Nothing stands before the first, and nothing follows the last. Of texts with no other tokens all
    are looked at.

    Parameters
    ----------
    trace
        A trace with tokens.
    """
    inner = _inner(trace)
    tokens = inner if inner.height else trace.tokens
    return int(tokens.sort("layers_used", "token", nulls_last=True)["token"][0])


def shallow_reading(trace: Trace, token: int) -> str:
    """Say how far below the mean the layers used by a token are.

    Parameters
    ----------
    trace
        The trace.
    token
        What ``shallowest_token`` returned for it.

    Returns
    -------
    str
        A sentence; empty where all tokens used the same number of layers, or it is unknown.
    """
    used, layers = trace.tokens["layers_used"], trace.run["layers"].item()
    if layers is None or used.null_count() or used.n_unique() < 2:
        return ""
    but = ""
    if _inner(trace).height:
        each = " of each text" if trace.tokens["sequence"].n_unique() > 1 else ""
        but = f" except the first and the last{each}"
    return (
        f"Token {token}, {trace.tokens['text'][token]!r}, used {used[token]:g} of {layers} layers, "
        f"the fewest of all tokens{but}; the mean is {float(np.mean(used.to_numpy())):z.1f}."
    )


def _inner(trace: Trace) -> pl.DataFrame:
    return trace.tokens.filter(pl.col("nll").is_not_null() & (pl.col("position") > 0))
