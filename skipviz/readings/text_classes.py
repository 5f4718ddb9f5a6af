"""The class that a model predicts of a text, in sentences."""

from __future__ import annotations

from skipviz.analysis.tokens.text_classes import predicted_classes
from skipviz.traces import Trace

MOST_NAMED = 6
"""Classes that a sentence names."""


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
        return f"The predicted class is {label}, with a probability of {prob:.1%}."
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
