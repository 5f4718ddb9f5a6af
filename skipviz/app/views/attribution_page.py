"""The page of attribution: what drives a prediction or a score, over the text and over depth."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.heading import heading
from skipviz.app.components.plain_text import plain
from skipviz.app.jobs import Request
from skipviz.app.one_text import single_text, text_caption
from skipviz.app.state import on_canvas
from skipviz.app.token_range import say_whole_text
from skipviz.app.views.attributions.over_depth import show_depth
from skipviz.app.views.attributions.over_tokens import show_text
from skipviz.app.views.correlation import show_correlations
from skipviz.plots.style.labels import said_of
from skipviz.traces import Trace


def page() -> None:
    """Offer the attributions of the text last traced, and show what came out."""
    heading(
        "What drives this prediction?", "attribution", "share", "convergence delta",
        "integrated gradients", "exact flip", "utility", "Spearman", "p-value", "q-value",
        "95% interval",
    )  # fmt: skip
    st.markdown(
        "One number, such as a loss or a gate score, is divided into **shares**: among the tokens "
        "of the text, and among the units of the layers. The last part compares gate scores with "
        "what running a unit is worth."
    )
    chosen = single_text()
    if chosen is None:
        return
    request, traced = chosen
    text_caption(traced)
    say_whole_text(request, traced, why="shares add up over all tokens.")
    token = _choose_token(request, traced)
    st.subheader("Over the text")
    show_text(request, traced, token)
    st.subheader("Over depth")
    shares = show_depth(request, traced, token)
    st.subheader("Are scores high where running a unit is worth it?")
    show_correlations(request, traced, shares)
    st.caption(plain(said_of(traced)))


def _choose_token(request: Request, traced: Trace) -> int:
    """Offer the tokens, first the one that is selected on the canvas, and have it select another.

    Without a selection the last token that predicts another is taken.
    """
    texts = traced.tokens["text"].to_list()
    following = [*(f", then {text!r}" for text in texts[1:]), ", the last"]
    on = on_canvas(request)
    selected = len(texts) - 2 if on.selection.token is None else on.selection.token
    token = int(
        st.selectbox(
            "Token",
            range(len(texts)),
            index=selected,
            format_func=lambda token: f"{token}: {texts[token]!r}{following[token]}",
            # A key of its own for each selection: the canvas has the last word.
            key=f"attributed {request.key} {selected}",
            help="The prediction made at this token, or a gate's score for it, is explained. Click "
            "one on the canvas, or type to search.",
        )
    )
    if token == selected:
        on.forget("attributed token")
    else:
        on.select("attributed token", token)
    return token
