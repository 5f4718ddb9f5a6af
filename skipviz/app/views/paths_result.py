"""What came out of a run: text and map, one token's path, whole-text figures, downloads."""

from __future__ import annotations

import io
from typing import Any

import streamlit as st

from skipviz import plots
from skipviz.analysis.cost import cost_summary
from skipviz.app.components.key_figures import key_figures
from skipviz.app.components.plain_text import plain
from skipviz.app.components.token_view import payload, token_view
from skipviz.plots.labels import said_of
from skipviz.traces import Trace

FIGURE = "Figure (HTML)"
FIGURE_TOKENS = 20_000
"""Tokens of a text that the figure to keep holds at most."""
EXPLORED = 200_000
"""Tokens that a page can hold, at some 350 bytes a token."""


def show(trace: Trace, *, key: str) -> None:
    """Show a trace; ``key`` changes exactly when the trace does."""
    names = trace.tokens["source"].unique(maintain_order=True)
    others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    st.caption(f"{plain(names[0])}{others}: {plain(said_of(trace))}")
    _numbers(trace)
    if len(trace) > EXPLORED:
        st.info(
            f"{len(trace):,} tokens are more than can be drawn one by one here, {EXPLORED:,} at "
            "most. The figures below and the downloads are of all of them; trace a part to see it."
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


def _numbers(trace: Trace) -> None:
    figures = cost_summary(trace)
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
            "where a unit was skipped for some tokens only, this run computes and masks it.",
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
        _payload(trace, key), key="token_view", start=_token_in_address(trace, key), on_select=_noop
    )
    if selected is None or selected >= len(trace):
        st.caption("Click a token, or focus the text and use the arrow keys, to see its path.")
        return
    st.query_params["token"] = str(selected)
    token = trace.tokens.row(selected, named=True)
    st.subheader(f"The path of token {selected}")
    st.text(
        f"{token['text']!r}: layers used {token['layers_used']:g}, "
        + _depth(trace, token["exit_depth"])
        + (f", loss on the next token {token['nll']:.2f} nats" if token["nll"] is not None else "")
    )
    left, right = st.columns(2)
    left.plotly_chart(plots.token_path(trace, selected), key="path")
    right.plotly_chart(plots.next_tokens(trace, selected), key="next")


def _depth(trace: Trace, layer: int | None) -> str:
    if layer is None:
        return "no gated layer ran"
    if trace.run["family"].item() != "exit":
        return f"deepest gated layer that ran {layer}"
    last = trace.run["layers"].item() - 1
    return f"ran to the last layer, {last}" if layer == last else f"left after layer {layer}"


def _payload(trace: Trace, key: str) -> dict[str, Any]:
    kept = st.session_state.get("payload")
    if kept is None or kept["key"] != key:
        kept = payload(trace, key=key)
        st.session_state.payload = kept
    return dict(kept)


def _token_in_address(trace: Trace, key: str) -> int | None:
    """Return the token that the page's address names, of the first text that is shown."""
    if "token_at_start" not in st.session_state:
        given = st.query_params.get("token", "")
        st.session_state.token_at_start = (key, int(given) if given.isdecimal() else None)
    of, start = st.session_state.token_at_start
    return start if of == key and start is not None and start < len(trace) else None


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
        chart = plots.layer_map(trace, count=FIGURE_TOKENS)
        page = (
            f"<!doctype html><meta charset='utf-8'>{plots.token_html(trace, limit=FIGURE_TOKENS)}"
            f"{chart.to_html(full_html=False, include_plotlyjs=True)}"
        )
        return page.encode("utf-8")

    kinds = [
        ("Decisions (CSV)", csv, "decisions.csv", "text/csv"),
        ("Decisions (Parquet)", parquet, "decisions.parquet", "application/octet-stream"),
        ("Trace", saved, "trace.parquet", "application/octet-stream"),
        (FIGURE, figure, "skip-paths.html", "text/html"),
    ]
    most = f"Its first {FIGURE_TOKENS:,} tokens." if len(trace) > FIGURE_TOKENS else None
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
