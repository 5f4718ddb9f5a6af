"""The page of attribution: what a prediction or score is owed to, over the text and over depth."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.one_text import text_to_look_into
from skipviz.app.views.attribution_over_depth import show_depth
from skipviz.app.views.attribution_over_tokens import show_text
from skipviz.app.views.correlation import show_correlations
from skipviz.plots.labels import said_of
from skipviz.traces import Trace


def page() -> None:
    """Offer the attributions of the text last traced, and show what came out."""
    st.header("What is it owed to?")
    st.markdown(
        "What in the text, and which units over the depth, made a prediction likely or a gate "
        "speak: **shares** of one number among all that could have made it. And whether gates "
        "score high where executing is worth it."
    )
    chosen = text_to_look_into("explained")
    if chosen is None:
        return
    request, traced = chosen
    st.caption(f"The text: {plain(traced.tokens['source'][0])}, {len(traced):,} tokens.")
    token = _choose_token(traced)
    st.subheader("Over the text")
    show_text(request, traced, token)
    st.subheader("Over depth")
    shares = show_depth(request, traced, token)
    st.subheader("Do scores go with what executing is worth?")
    show_correlations(request, traced, shares)
    st.caption(plain(said_of(traced)))


def _choose_token(traced: Trace) -> int:
    texts = traced.tokens["text"].to_list()
    following = [*(f", then {text!r}" for text in texts[1:]), ", the last"]
    return int(
        st.selectbox(
            "Token",
            range(len(texts)),
            index=len(texts) - 2,
            format_func=lambda token: f"{token}: {texts[token]!r}{following[token]}",
            # A key of its own for each length: a shorter text has no such token.
            key=f"attributed of {len(texts)}",
            help="The prediction made at this token, or a gate's score for it, is explained. Type "
            "to search.",
        )
    )
