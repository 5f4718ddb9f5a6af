"""What must be known of a way of skipping before its figures are read, in a word and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from skipviz.traces import Trace

RANKED = ("topk", "quantile")
"""Rules that compare tokens with each other, later ones too."""
SCOPE_NAMES = {"window": "window", "sequence": "text", "batch": "batch"}
READS_AS_WHOLE = "The model reads a text as a whole and predicts no next token"


def needs_next_token(trace: Trace, consequence: str) -> str | None:
    """Return why what stands on the next token does not apply to a trace; None if it does.

    Parameters
    ----------
    trace
        Any trace.
    consequence
        What follows, as the end of a sentence.
    """
    if trace.run["loss"].item() != "none":
        return None
    return f"{READS_AS_WHOLE}, so {consequence}. Trace the text with a model that predicts one."


@dataclass(frozen=True)
class Note:
    """A property of a way of skipping.

    Attributes
    ----------
    label
        One to three words.
    sentence
        What it means for reading the figures.
    """

    label: str
    sentence: str


def skipping_notes(trace: Trace) -> list[Note]:
    """Return what must be known of how the model of a trace skips; empty for a dense model.

    Parameters
    ----------
    trace
        Any trace.
    """
    sites = trace.sites
    if not sites.height:
        return []
    found = []
    if (sites["rule"] == "sample").any():
        seed = trace.run["seed"].item()
        which = "" if seed is None else f" (seed {seed})"
        found.append(Note(
            "drawn at random",
            f"Gates draw their decisions: this is one draw of many{which}. The check-up says how "
            "many decisions another seed changes.",
        ))  # fmt: skip
    for scope, word in SCOPE_NAMES.items():
        share = (sites["scope"] == scope).fill_null(False)
        if share.any():
            where = "" if share.all() else f" at {int(share.sum())} of {sites.height} sites"
            found.append(Note(
                f"one decision per {word}",
                f"All tokens of a {word} share a decision{where}, so tokens cannot be compared "
                "there.",
            ))  # fmt: skip
    whole = trace.run["loss"].item() == "none"
    if whole:
        found.append(Note(
            "no next token",
            f"{READS_AS_WHOLE}, so there is no loss.",
        ))  # fmt: skip
    ahead = sites["rule"].is_in(RANKED) | sites["scope"].is_in(("sequence", "batch"))
    if whole or ahead.fill_null(False).any():
        found.append(Note(
            "not causal",
            "Every token sees the whole text, so decisions depend on later tokens too."
            if whole
            else "Decisions depend on later tokens too. While generating they differ, and losses "
            "of a whole text are too good.",
        ))  # fmt: skip
    if trace.matrix("exec_count").max(initial=0) > 1 or (sites["visit"] > 0).any():
        found.append(Note(
            "layers repeat",
            "A layer may run more than once for a token, and counts as often as it ran.",
        ))  # fmt: skip
    if (trace.tokens["phase"] == "draft").any():
        found.append(Note(
            "drafts",
            "Some tokens were drafted and then verified, and both count as runs. Drafts that were "
            "rejected are sequences of their own: they cost time and are no part of the text.",
        ))  # fmt: skip
    return found + _saving(sites)


def _saving(sites: pl.DataFrame) -> list[Note]:
    """Return whether what is skipped is computed all the same."""
    anyway = sites["computed_anyway"]
    if anyway.fill_null(False).any():
        share = "" if anyway.fill_null(False).all() else " at some sites"
        return [Note(
            "computed anyway",
            f"Skipped units are computed and discarded{share}: FLOPs are those that the decisions "
            "imply, and no time is saved.",
        )]  # fmt: skip
    if anyway.null_count():
        return [Note(
            "saving unknown",
            "Whether skipped units are computed all the same is not known: the check-up counts it.",
        )]  # fmt: skip
    return []
