"""What came out of a run: text and map, one token's path, whole-text figures, downloads."""

from __future__ import annotations

import io
from typing import Any

import streamlit as st

from skipviz import plots
from skipviz.analysis.cost import summary
from skipviz.app.key_figures import key_figures
from skipviz.app.plain_text import plain
from skipviz.app.token_view import payload, token_view
from skipviz.plots.labels import said_of
from skipviz.trace import Trace


def show(trace: Trace, *, key: str) -> None:
    """Show a trace; ``key`` changes exactly when the trace does."""
    _numbers(trace)
    _explore(trace, key)
    st.subheader("The whole text")
    left, right = st.columns(2)
    left.plotly_chart(plots.layers_used_histogram(trace), key="histogram")
    right.plotly_chart(plots.execution_rate_by_layer(trace), key="rates")
    st.plotly_chart(plots.compute_share_figure(trace), key="share")
    st.subheader("Downloads")
    _downloads(trace)
    st.caption(plain(said_of(trace)))


def _numbers(trace: Trace) -> None:
    figures = summary(trace)
    cells = [
        ("Tokens", f"{figures.tokens:,}", "Tokens of the text, as the model's tokenizer cuts it."),
        (
            "Layers used, mean",
            f"{figures.layers_mean:.1f} of {figures.layers}",
            "Attention and MLP count half each; layers without gates count as run.",
        ),
        (
            "Budget realised",
            f"{figures.budget:.3f}",
            "FLOPs of attention (without keys and values), MLP, adapters and gates, over those of "
            "the dense model, on this text.",
        ),
        (
            "Whole-model FLOPs",
            f"{figures.flop_share:.1%}",
            "Share of the dense model's FLOPs, keys, values and head included. FLOPs, not time: "
            "this run computes skipped units too and masks them.",
        ),
        (
            "Loss",
            "none" if figures.loss is None else f"{figures.loss:.2f} nats",
            "Mean loss on the next token.",
        ),
    ]
    key_figures(cells)


@st.fragment
def _explore(trace: Trace, key: str) -> None:
    selected = token_view(
        _payload(trace, key), key="token_view", start=_token_in_address(trace), on_select=_noop
    )
    if selected is None or selected >= len(trace):
        st.caption("Click a token, or focus the text and use the arrow keys, to see its path.")
        return
    st.query_params["token"] = str(selected)
    token = trace.tokens.row(selected, named=True)
    st.subheader(f"The path of token {selected}")
    st.text(
        f"{token['text']!r}: layers used {token['layers_used']:g}, "
        + (
            "no gated layer ran"
            if token["exit_depth"] is None
            else f"left after layer {token['exit_depth']}"
            if trace.run["family"].item() == "exit"
            else f"deepest gated layer that ran {token['exit_depth']}"
        )
        + (f", loss on the next token {token['nll']:.2f} nats" if token["nll"] is not None else "")
    )
    left, right = st.columns(2)
    left.plotly_chart(plots.token_path(trace, selected), key="path")
    right.plotly_chart(plots.next_tokens(trace, selected), key="next")


def _payload(trace: Trace, key: str) -> dict[str, Any]:
    kept = st.session_state.get("payload")
    if kept is None or kept["key"] != key:
        kept = payload(trace, key=key)
        st.session_state.payload = kept
    return dict(kept)


def _token_in_address(trace: Trace) -> int | None:
    """Return the token that the page's address names, read once a session."""
    if "token_at_start" not in st.session_state:
        given = st.query_params.get("token", "")
        st.session_state.token_at_start = int(given) if given.isdecimal() else None
    start: int | None = st.session_state.token_at_start
    return start if start is not None and start < len(trace) else None


def _noop() -> None:
    """Streamlit wants a callback for each value that a component returns."""


def _downloads(trace: Trace) -> None:
    def csv() -> bytes:
        buffer = io.BytesIO()
        trace.write_csv(buffer)
        return buffer.getvalue()

    def parquet() -> bytes:
        buffer = io.BytesIO()
        trace.to_long().write_parquet(buffer)
        return buffer.getvalue()

    def saved() -> bytes:
        buffer = io.BytesIO()
        trace.save(buffer)
        return buffer.getvalue()

    def figure() -> bytes:
        chart = plots.layer_map(trace).to_html(full_html=False, include_plotlyjs=True)
        page = f"<!doctype html><meta charset='utf-8'>{plots.token_html(trace)}{chart}"
        return page.encode("utf-8")

    kinds = [
        ("Decisions (CSV)", csv, "decisions.csv", "text/csv"),
        ("Decisions (Parquet)", parquet, "decisions.parquet", "application/octet-stream"),
        ("Trace", saved, "trace.parquet", "application/octet-stream"),
        ("Figure (HTML)", figure, "skip-paths.html", "text/html"),
    ]
    for column, (label, make, name, mime) in zip(st.columns(len(kinds)), kinds, strict=True):
        column.download_button(
            label, make, file_name=name, mime=mime, on_click="ignore", width="stretch"
        )
