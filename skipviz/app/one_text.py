"""What pages share that look into the decisions over one text: whether they can, and its audit."""

from __future__ import annotations

import polars as pl
import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, traced_now
from skipviz.app.components.token_view import span_texts
from skipviz.app.components.trials import tried
from skipviz.app.jobs import Request
from skipviz.experiments.decision_audit import Downstream, audit
from skipviz.traces import Trace

FORWARDS = 40
"""About how many runs of the text an audit takes."""
AROUND = 24
"""Tokens shown before and after one in its context."""
FIRST_GUESS = 150
"""Tokens a second before anything has run here."""
WITH_GRADIENT = 3
"""How many times as long a run takes that is walked back for gradients."""


def text_to_look_into(will_be: str) -> tuple[Request, Trace] | None:
    """Return what was traced last, or say why there is nothing that can be ``will_be`` here."""
    known = traced_now()
    if known is None:
        st.info(f"Trace a text on the page “Skip paths” first; it is what will be {will_be} here.")
        return None
    problem = unfit(known[1])
    if problem is not None:
        st.info(problem)
        return None
    return known


def unfit(traced: Trace) -> str | None:
    """Return why the decisions over what was traced cannot be looked into, or None."""
    run = traced.run.row(0, named=True)
    if run["family"] != "gated":
        return (
            f"{plain(run['model'])} has no gates on single units (family {plain(run['family'])}), "
            "so there are no decisions to look into one by one. Trace the text with another model."
        )
    if traced.tokens["sequence"].n_unique() != 1:
        return "Several texts were traced; this page takes one. Trace one of them alone."
    if traced.tokens["context"].to_list() != list(range(1, len(traced) + 1)):
        return "The text was traced in several windows; this page takes one. Trace a part of it."
    if len(traced) < 2:
        return "A single token predicts nothing that is known. Trace a longer text."
    return None


def seconds(forwards: float, tokens: int) -> float:
    """Return about how long runs of a text take here."""
    return forwards * tokens / (jobs().tokens_per_second or FIRST_GUESS)


def about(duration: float) -> str:
    """Return a duration given in seconds, in words."""
    return f"{max(1.0, duration):.0f} s" if duration < 90 else f"{duration / 60:.0f} minutes"


def audited(request: Request, traced: Trace, downstream: Downstream) -> pl.DataFrame | None:
    """Offer the audit of a text, and return it once it is there.

    It is the same audit on every page: where one page has made it, the others have it.
    """
    st.caption(
        f"The text: {plain(traced.tokens['source'][0])}, {len(traced):,} tokens, "
        f"{(len(traced) - 1) * traced.sites.height:,} decisions, about "
        f"{about(seconds(FORWARDS, len(traced)))}. You can stop at any time."
    )
    return tried(
        "audit",
        "Audit this text",
        request,
        lambda: jobs().experiment(
            request,
            f"audit {downstream}",
            lambda model, progress, stop: audit(
                model, traced, downstream=downstream, progress=progress, stop=stop
            ),
        ),
        settings=downstream,
    )


def in_context(traced: Trace, token: int) -> str:
    """Return a token's text in brackets among those around it, every character once."""
    texts = span_texts(traced)["text"]
    span = traced.tokens["span"]
    first = int(span.search_sorted(span[token]))
    begin, end = max(0, first - AROUND), first + AROUND + 1
    before, after = "".join(texts[begin:first]), "".join(texts[first + 1 : end])
    return (
        f"{'…' if begin else ''}{before}⟦{texts[first]}⟧{after}{'…' if end < len(traced) else ''}"
    )
