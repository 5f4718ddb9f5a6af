"""What came out of a run: text and map, one token's path, whole-text figures, downloads."""

from __future__ import annotations

import io
from typing import Any

import streamlit as st

from skipviz import plots
from skipviz.analysis.flops import CostSummary, cost_summary
from skipviz.app.components.downloads import trace_csv, trace_file
from skipviz.app.components.key_figures import key_figures, said_or_unknown
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs
from skipviz.app.components.token_view import payload, token_view
from skipviz.app.jobs import Request
from skipviz.app.state import state
from skipviz.app.views.own_thresholds_offer import offer_thresholds
from skipviz.glossary import GLOSSARY
from skipviz.plots.style.labels import said_of
from skipviz.readings.paths import cost_reading, loss_words, token_reading
from skipviz.traces import Trace

FIGURE = "Figure (HTML)"
FIGURE_TOKENS = 20_000
"""Tokens of a text that the downloaded figure holds at most."""
EXPLORED = 200_000
"""Tokens that a page can hold, at some 350 bytes per token."""


def show(trace: Trace, request: Request, *, key: str) -> None:
    """Show a trace of a request; ``key`` changes exactly when the trace does."""
    names = trace.tokens["source"].unique(maintain_order=True)
    others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    st.caption(f"{plain(names[0])}{others}: {plain(said_of(trace))}")
    figures = cost_summary(trace)
    st.markdown(cost_reading(trace, figures))
    _numbers(trace, figures)
    offer_thresholds(trace, request)
    if len(trace) > EXPLORED:
        st.info(
            f"The text has {len(trace):,} tokens; at most {EXPLORED:,} can be shown one by one. "
            f"The "
            "figures and downloads below cover all of them. To see single tokens, trace a part."
        )
    else:
        _explore(trace, key)
    st.subheader("The whole text")
    left, right = st.columns(2)
    left.plotly_chart(plots.layers_used_histogram(trace), key="histogram")
    right.plotly_chart(plots.execution_rate_by_layer(trace), key="rates")
    st.plotly_chart(plots.compute_share_figure(trace), key="share")
    st.subheader("Downloads")
    _downloads(trace)


def _numbers(trace: Trace, figures: CostSummary) -> None:
    cells = [
        (
            "Tokens",
            f"{figures.tokens:,}",
            "The units into which the model's tokenizer splits the text.",
        ),
        (
            "Layers used, mean",
            f"{figures.layers_mean:.1f} of {figures.layers}",
            GLOSSARY["layers used"],
        ),
        (
            "Budget realised",
            said_or_unknown(figures.budget, ".3f"),
            f"On this text. {GLOSSARY['budget']}",
        ),
        (
            "Whole-model FLOPs",
            said_or_unknown(figures.flop_share, ".1%"),
            "Share of the dense model's FLOPs, including keys, values and the head. FLOPs are not "
            "time: a unit that is skipped for some tokens only is still computed here, and its "
            "result discarded for those tokens.",
        ),
        (
            "Loss",
            loss_words(trace, figures.loss),
            f"Mean over all tokens. {GLOSSARY['loss']}",
        ),
    ]
    key_figures(cells)


@st.fragment
def _explore(trace: Trace, key: str) -> None:
    selected = token_view(
        _payload(trace, key), key="token_view", start=_token_in_address(trace, key), on_select=_noop
    )
    if selected is None or selected >= len(trace):
        st.caption(
            "Click a token, or use the arrow keys in the text, to see its path through the layers."
        )
        return
    st.query_params["token"] = str(selected)
    st.subheader(f"The path of token {selected}")
    st.text(token_reading(trace, selected))
    left, right = st.columns(2)
    left.plotly_chart(plots.token_path(trace, selected), key="path")
    right.plotly_chart(plots.next_tokens(trace, selected), key="next")


def _payload(trace: Trace, key: str) -> dict[str, Any]:
    return dict(jobs().made(f"view {key}", lambda: payload(trace, key=key)))


def _token_in_address(trace: Trace, key: str) -> int | None:
    """Return the token that the page's address names, of the first text that is shown."""
    if (known := state().start) is None:
        given = st.query_params.get("token", "")
        known = state().start = (key, int(given) if given.isdecimal() else None)
    of, start = known
    return start if of == key and start is not None and start < len(trace) else None


def _noop() -> None:
    """Streamlit wants a callback for each value that a component returns."""


def _downloads(trace: Trace) -> None:
    def parquet() -> bytes:
        buffer = io.BytesIO()
        trace.to_long().write_parquet(buffer)
        return buffer.getvalue()

    def figure() -> bytes:
        chart = plots.layer_map(trace, count=FIGURE_TOKENS)
        page = (
            f"<!doctype html><meta charset='utf-8'>{plots.token_html(trace, limit=FIGURE_TOKENS)}"
            f"{chart.to_html(full_html=False, include_plotlyjs=True)}"
        )
        return page.encode("utf-8")

    kinds = [
        ("Decisions (CSV)", lambda: trace_csv(trace), "decisions.csv", "text/csv"),
        ("Decisions (Parquet)", parquet, "decisions.parquet", "application/octet-stream"),
        ("Trace", lambda: trace_file(trace), "trace.parquet", "application/octet-stream"),
        (FIGURE, figure, "skip-paths.html", "text/html"),
    ]
    most = f"The first {FIGURE_TOKENS:,} tokens." if len(trace) > FIGURE_TOKENS else None
    for column, (label, make, name, mime) in zip(st.columns(len(kinds)), kinds, strict=True):
        column.download_button(
            label,
            make,
            file_name=name,
            mime=mime,
            on_click="ignore",
            width="stretch",
            help=most if label == FIGURE else None,
        )
