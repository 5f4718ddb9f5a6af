"""The page of comparisons: what is shown beside another of the visitor's recent runs."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import polars as pl
import streamlit as st

from skipviz import plots
from skipviz.analysis.comparison import TraceComparison, compare_traces
from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.heading import heading
from skipviz.app.components.notebook_cell import FROM_TRACE, SAVED_AS, notebook_cells
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import PATHS, computed, jobs, traced_now
from skipviz.app.frame.opening import asked_for, no_text_yet, sample
from skipviz.app.frame.recent_runs import RecentRun, recent_runs
from skipviz.app.jobs import Request
from skipviz.app.sessions import this_visitor
from skipviz.app.state import on_canvas, state
from skipviz.app.token_range import TokenRange, chosen_range
from skipviz.plots.comparison.lenses import COMPARISON_LENSES, comparison_lenses
from skipviz.plots.style.labels import said_of
from skipviz.readings.comparison.traces import classes_reading, traces_caveat, traces_reading
from skipviz.traces import Trace

OTHER_RUN = "compared with"
"""The run that what is shown is compared with."""
MOST_DIFFERENT = 30
"""Pieces of a text that the table shows."""
TEXT_TOKENS = 2_000
"""Tokens of each text that stand side by side."""
NOTHING = (
    "There is one run so far. Trace the same text with another model, policy or budget, or another "
    "text: then the two can be compared here."
)


def page() -> None:
    """Offer the visitor's other runs, and show what differs."""
    heading(
        "What differs between two runs?", "layers used", "budget", "FLOPs", "surprisal", "site",
        "95% interval",
    )  # fmt: skip
    known = traced_now()
    if known is None:
        no_text_yet()
        return
    request, trace = known
    shown = state().runs[PATHS].finished
    others = {
        run.request.address: run
        for run in [*recent_runs().of(this_visitor()), RecentRun(sample()[0], datetime.now())]
        if shown is None or run.request.key != shown.request.key
    }
    if not others:
        st.info(NOTHING)
        return
    second = _choose(others, request).request
    other = computed(OTHER_RUN, "Trace it again", second, lambda: asked_for(second))
    if other is None:
        return
    found = jobs().made(
        f"comparison {request.key} {second.key}", lambda: compare_traces(trace, other)
    )
    _show(request, second, found)


def _choose(others: dict[str, RecentRun], shown: Request) -> RecentRun:
    """Offer the runs, the latest first; at first that of the same text, or else the latest."""
    words = _words(shown)
    first = next((n for n, run in enumerate(others.values()) if _words(run.request) == words), 0)
    times = Counter(run.label for run in others.values())

    def label(address: str) -> str:
        said = others[address].label  # as it is: a list of choices is no Markdown
        return said if times[said] == 1 else f"{said} · {address[:4]}"

    address = st.selectbox(
        "Compare what is shown, the first, with this run, the second",
        list(others),
        index=first,
        format_func=label,
        key=f"compare with {shown.address} {list(others)[first]}",  # no choice made for another run
    )
    return others[str(address)]


def _words(request: Request) -> list[object]:
    """Return what a request's texts say, whatever they are called."""
    return [(document.text, document.messages) for document in request.documents]


def _show(request: Request, second: Request, found: TraceComparison) -> None:
    _paint(request, second, found)
    st.markdown(traces_reading(found))
    if said := classes_reading(found):
        st.markdown(plain(said))
    st.plotly_chart(plots.comparison_figure(found), key="comparison")
    if found.match != "none":
        st.caption("The canvas above can be coloured by what differs.")
    left, right = st.columns(2)
    _text(left, "First", found.trace)
    _text(right, "Second", found.other)
    with st.expander("What each came to"):
        st.dataframe(found.totals, hide_index=True, width="stretch")
    tables = {"Totals": ("comparison-totals", found.totals)}
    if found.match != "none":
        chosen = chosen_range(
            request, found.trace, but="That is of the places where they differ most; all else is "
            "of the whole text.",
        )  # fmt: skip
        _where(found, chosen)
        tables["Pieces of the text"] = ("comparison-pieces", found.pieces)
    if found.shared_sites.height:
        with st.expander("Shared sites"):
            st.dataframe(found.shared_sites, hide_index=True, width="stretch")
        tables["Shared sites"] = ("comparison-sites", found.shared_sites)
    csv_buttons(tables)
    notebook_cells(
        "skipviz.plots.comparison_figure(skipviz.compare_traces(trace, other))",
        first=[FROM_TRACE, 'other = skipviz.Trace.load("other.parquet")'],
        files=f"{SAVED_AS} Show the second run and save its trace as other.parquet.",
    )
    st.caption(traces_caveat(found))


def _paint(request: Request, second: Request, found: TraceComparison) -> None:
    """Let the canvas be coloured by what differs."""
    on = on_canvas(request)
    lenses = comparison_lenses(found)
    for name in set(COMPARISON_LENSES) - {lens.name for lens in lenses}:
        on.unpaint(name)  # of the run that was compared before
    on.paint(f"comparison with {second.key}", lambda: lenses, offered=True)


def _text(place: st.delta_generator.DeltaGenerator, name: str, trace: Trace) -> None:
    with place:
        st.subheader(name)
        st.caption(plain(said_of(trace)))
        with st.container(height=320):
            st.html(plots.token_html(trace, limit=TEXT_TOKENS))


def _where(found: TraceComparison, chosen: TokenRange) -> None:
    """List the pieces whose surprisal differs most."""
    pieces = chosen.rows(found.pieces, column="first_token").with_columns(
        nats=pl.col("surprisal") - pl.col("surprisal_other"),
        layers=pl.col("layers_used") - pl.col("layers_used_other"),
    )
    most = pieces.drop_nulls("nats").sort(pl.col("nats").abs(), descending=True)
    with st.expander(f"Where they differ most: {min(MOST_DIFFERENT, most.height)} places"):
        st.dataframe(
            most.head(MOST_DIFFERENT).select(
                "text",
                pl.col("first_token").alias("token"),
                pl.col("nats").round(3).alias("surprisal, nats more"),
                pl.col("layers").round(2).alias("layers used, more"),
                pl.col("changed").alias("decisions that differ"),
            ),
            hide_index=True,
            width="stretch",
        )
