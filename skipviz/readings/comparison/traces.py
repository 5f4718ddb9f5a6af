"""The page of comparisons in sentences."""

from __future__ import annotations

import math

from skipviz.analysis.comparison import TraceComparison
from skipviz.analysis.tokens.text_classes import predicted_classes

_ALIKE = 5e-5
"""Nats per character below which surprisal is called the same."""


def traces_reading(found: TraceComparison) -> str:
    """Say which of two runs predicts the text better, which costs less, and how many decide alike.

    Parameters
    ----------
    found
        What ``skipviz.compare_traces`` returned.
    """
    if found.match == "none":
        return " ".join(
            ("**These are two texts**, so only their totals can be compared.", _depth(found))
        )
    return " ".join(part for part in (_loss(found), _cost(found), _decided(found)) if part)


def traces_caveat(found: TraceComparison) -> str:
    """Say how far a comparison reaches.

    Parameters
    ----------
    found
        What ``skipviz.compare_traces`` returned.
    """
    one_text = (
        "This is one text: a difference on it does not show which is better on others. FLOPs are "
        "those that the decisions imply, not time."
    )
    if found.match == "tokens":
        return one_text
    counts = f"{len(found.trace):,} and {len(found.other):,} tokens"
    if found.match == "none":
        return (
            f"The texts have {counts}. Layers used depend on the text as much as on the model. "
            "FLOPs are those that the decisions imply, not time."
        )
    return (
        f"The tokenizers cut the text into {counts}; they are compared over the "
        f"{found.pieces.height:,} pieces that both cut at their ends, by the surprisal of their "
        f"characters. {one_text}"
    )


def classes_reading(found: TraceComparison) -> str:
    """Say whether two runs predict the same class of a text; nothing where they predict none.

    Parameters
    ----------
    found
        What ``skipviz.compare_traces`` returned.
    """
    one, two = (predicted_classes(trace) for trace in (found.trace, found.other))
    if found.match == "none" or not one.height or one.height != two.height:
        return ""
    if one.height > 1:
        same = int((one["class_label"] == two["class_label"]).sum())
        return f"They predict the same class for {same:,} of {one.height:,} texts."
    names = ("class_label", "class_prob")
    return " ".join(
        f"The {which} run predicts the class {label}"
        + ("." if prob is None else f", with a probability of {prob:z.1%}.")
        for which, (label, prob) in zip(
            ("first", "second"), (each.select(names).row(0) for each in (one, two)), strict=True
        )
    )


def _loss(found: TraceComparison) -> str:
    if all(trace.run["loss"].item() == "none" for trace in (found.trace, found.other)):
        return "Neither predicts the next token, so there are no losses to compare."
    more = found.more_surprisal
    if more is None:
        return "Which predicts the text better is unknown, because losses are."
    difference, margin = more
    if abs(difference) < _ALIKE:
        return "**Both predict the text equally well.**"
    better = "first" if difference < 0 else "second"
    size = f"{abs(difference):z.4f}"
    if math.isnan(margin):
        return (
            f"**The {better} run predicts the text better**, by {size} nats per character. The "
            "text is too short to tell this from chance."
        )
    interval = f"{size} nats per character (± {margin:z.4f}, 95% interval)"
    if abs(difference) <= margin:
        clear = "**Neither run predicts the text clearly better**"
        return f"{clear}: the {better} one does by {interval}."
    return f"**The {better} run predicts the text better**, by {interval}."


def _cost(found: TraceComparison) -> str:
    one, two = found.costs
    totals = {row["figure"]: row for row in found.totals.rows(named=True)}
    spent, other = (totals["FLOPs per character"][name] for name in ("trace", "other"))
    if not spent or not other:
        return f"What they cost is unknown, because FLOPs are. {_depth(found)}"
    ratio = spent / other
    if abs(ratio - 1) < 5e-4:
        said = "Both need the same FLOPs"
    else:
        fewer = "first" if ratio < 1 else "second"
        share = 1 - min(ratio, 1 / ratio)
        said = f"The {fewer} needs {share:z.1%} fewer FLOPs"
    return (
        f"{said}: {one.flop_share:z.1%} and {two.flop_share:z.1%} of what their dense models need. "
        f"{_depth(found)}"
    )


def _depth(found: TraceComparison) -> str:
    one, two = found.costs
    return (
        f"Tokens used {one.layers_mean:z.1f} of {one.layers} layers in the first and "
        f"{two.layers_mean:z.1f} of {two.layers} in the second, on average."
    )


def _decided(found: TraceComparison) -> str:
    known = found.pieces["changed"].drop_nulls()
    sites = found.shared_sites.height
    if known.is_empty() or not sites:
        return "They have no gates in common whose decisions could be compared."
    changed, total = int(known.sum()), len(known) * sites
    if not changed:
        return "All decisions at shared sites are the same."
    return (
        f"{changed:,} of {total:,} decisions at {sites} shared sites differ "
        f"({changed / total:z.1%}), in {int((known > 0).sum()):,} of {len(known):,} tokens."
    )
