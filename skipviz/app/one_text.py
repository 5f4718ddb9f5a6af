"""What pages share that build on the text traced last: whether they can, and its audit."""

from __future__ import annotations

import polars as pl
import streamlit as st

from skipviz.analysis.tokens.characters import text_around
from skipviz.app.cell_answers import AUDIT_RUN
from skipviz.app.components.canvas_payload import span_texts
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, traced_now, tried
from skipviz.app.costs import Effort
from skipviz.app.frame.opening import no_text_yet
from skipviz.app.jobs import Request
from skipviz.app.one_window import one_window
from skipviz.experiments.decision_audit import Downstream, audit
from skipviz.readings.skipping import needs_next_token
from skipviz.readings.tokens.word_lists import word_lists_reading
from skipviz.traces import Trace

AROUND = 24
"""Tokens shown before and after one in its context."""


def traced_text(*, gates: str | None = None) -> tuple[Request, Trace] | None:
    """Return what was traced last, or say what is missing.

    Parameters
    ----------
    gates
        What follows for this page if the model has no gates; None if the page does without.
    """
    known = traced_now()
    if known is None:
        no_text_yet()
        return None
    traced = known[1]
    if gates is not None and not traced.sites.height:
        st.info(no_gates(traced, gates))
        return None
    return known


def no_gates(traced: Trace, consequence: str) -> str:
    """Return that a model has no gates, what follows, and what to do."""
    return (
        f"{plain(traced.run['model'].item())} has no gates, so {consequence}. Trace the text with "
        "a model that skips."
    )


def say_word_lists(request: Request, traced: Trace) -> None:
    """Say that English lists of words were not used, where the text is not English."""
    # Reading the words takes its time, and a page is drawn at every click.
    said = jobs().made(f"word lists {request.key}", lambda: word_lists_reading(traced))
    if said:
        st.caption(said)


def single_text() -> tuple[Request, Trace] | None:
    """Return the one text that was traced last, or say why its decisions cannot be examined."""
    known = traced_text()
    if known is None:
        return None
    problem = unfit(known[1])
    if problem is not None:
        st.info(problem)
        return None
    return known


def unfit(traced: Trace) -> str | None:
    """Return why the decisions over what was traced cannot be examined, or None."""
    told = needs_next_token(traced, "there is no loss by which a decision could be examined")
    if told is not None:
        return told
    run = traced.run.row(0, named=True)
    if traced.sites.filter(pl.col("unit") != "block").is_empty():
        return (
            f"{plain(run['model'])} has no gates on single units (family {plain(run['family'])}), "
            "so its decisions cannot be examined one by one. Trace the text with another model."
        )
    return one_window(traced)


def text_caption(traced: Trace, *more: str) -> None:
    """Show which text a page is about, with how many tokens."""
    names = traced.tokens["source"].unique(maintain_order=True)
    sequences = traced.tokens["sequence"].n_unique()
    others = f" and {sequences - 1:,} more" if sequences > 1 else ""
    tokens = f"{len(traced):,} token{'' if len(traced) == 1 else 's'}"
    st.caption(", ".join([f"The text: {plain(names[0])}{others}", tokens, *more]) + ".")


def audited(request: Request, traced: Trace, downstream: Downstream) -> pl.DataFrame | None:
    """Offer the audit of a text, and return it once it is there.

    It is the same audit on every page: where one page has made it, the others have it.
    """
    effort = Effort(f"audit {downstream} {request.model}", len(traced))
    text_caption(
        traced,
        f"{(len(traced) - 1) * traced.sites.height:,} decisions of tokens that have a loss",
    )
    return tried(
        AUDIT_RUN,
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
        effort=effort,
    )


def in_context(traced: Trace, token: int) -> str:
    """Return a token's text in brackets among those around it, every character once."""
    span = traced.tokens["span"]
    first = int(span.search_sorted(span[token]))
    last = int(span.search_sorted(span[token], "right")) - 1
    before, _ = text_around(traced, first, tokens=AROUND)
    _, after = text_around(traced, last, tokens=AROUND)
    more = last + AROUND + 1 < len(traced)
    text = span_texts(traced)["text"][first]
    return f"{'…' if first > AROUND else ''}{before}⟦{text}⟧{after}{'…' if more else ''}"


def named_cells(traced: Trace, cells: pl.DataFrame, *columns: pl.Expr) -> pl.DataFrame:
    """Return decisions as a table to read: token, text, site, decision, and further columns."""
    texts = traced.tokens["text"]
    return cells.select(
        "token",
        pl.col("token").map_elements(lambda token: repr(texts[token]), pl.String).alias("text"),
        pl.col("label").alias("site"),
        pl.when("executed").then(pl.lit("ran")).otherwise(pl.lit("skipped")).alias("decision"),
        *columns,
    )
