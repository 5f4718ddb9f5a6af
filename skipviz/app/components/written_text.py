"""A text that a model writes, every token in the colour of the layers that it used.

It is HTML, sent anew while the text grows; texts that are there stand in ``canvas``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from skipviz.plots.style.labels import html_text
from skipviz.plots.style.palette import (
    CIVIDIS,
    VERMILION,
    interpolate,
    readable_on,
    shares_along,
)
from skipviz.recording.generating import StreamedToken

LAST_SHOWN = 600
"""Tokens of the prompt, and of what was written, that are shown at most: the last ones."""
PHASE_TITLES = {
    "prefill": "Prompt, read at once (prefill)",
    "decode": "Written token by token (decode)",
}
SMALL = "font-size:.85rem;margin:.6rem 0 .2rem"
BOX = (
    "line-height:1.75;white-space:pre-wrap;overflow-wrap:anywhere;max-height:22rem;"
    "overflow-y:auto;padding:.5rem .7rem;border:1px solid rgba(128,128,128,.5);border-radius:.5rem"
)
BAR = (
    "display:inline-block;width:9rem;height:.8rem;margin:0 .4rem;border-radius:.2rem;"
    "border:1px solid rgba(128,128,128,.6);vertical-align:-.1rem"
)
UNREAD = "border-bottom:2px dotted currentColor"
PARTING = f";outline:2.5px solid {VERMILION};outline-offset:1px"


def written_text(
    tokens: Sequence[StreamedToken], ends: tuple[float, float], *, parts: int | None = None
) -> None:
    """Show a text in the colours of layers used.

    Parameters
    ----------
    tokens
        Those that there are.
    ends
        The fewest and the most layers that a token can use: the ends of the scale.
    parts
        The place of the token from which another text differs; None if there is no such.
    """
    if tokens:
        st.html(written_html(tokens, ends, parts=parts))


def layers_scale(ends: tuple[float, float]) -> None:
    """Show what the colours mean."""
    low, high = ends
    gradient = f"background:linear-gradient(to right,{','.join(CIVIDIS)})"
    st.html(
        f'<div style="{SMALL}">layers used: {low:g}<span style="{BAR};{gradient}"></span>{high:g}; '
        "dotted: written, and not read yet</div>"
    )


def written_html(
    tokens: Sequence[StreamedToken], ends: tuple[float, float], *, parts: int | None = None
) -> str:
    """Return the text as HTML; the rest as for ``written_text``."""
    blocks = []
    for phase, title in PHASE_TITLES.items():
        ours = [token for token in tokens if token.phase == phase]
        if ours:
            blocks.append(_block(ours, title, ends, parts))
    return "".join(blocks)


def _block(
    tokens: Sequence[StreamedToken], title: str, ends: tuple[float, float], parts: int | None
) -> str:
    shown = tokens[-LAST_SHOWN:]
    words = f"{title}, {len(tokens):,} token{'' if len(tokens) == 1 else 's'}"
    if len(shown) < len(tokens):
        words += f", the last {LAST_SHOWN:,} shown"
    used = np.array([np.nan if t.layers_used is None else t.layers_used for t in shown])
    colours = interpolate(CIVIDIS, shares_along(np.nan_to_num(used), ends))
    inks = np.where(readable_on(colours), "#000", "#fff")
    spans = []
    for token, (red, green, blue), ink in zip(shown, colours.tolist(), inks, strict=True):
        style, tip = f"background:rgb({red},{green},{blue});color:{ink}", "not read yet"
        if token.layers_used is None:
            style = UNREAD
        else:
            tip = f"token {token.position}: layers used {token.layers_used:g}"
        style += PARTING if token.position == parts else ""
        spans.append(f'<span style="{style}" title="{tip}">{html_text(token.text)}</span>')
    return (
        f'<div style="{SMALL}">{words}</div>'
        f'<div style="{BOX}" dir="auto" tabindex="0">{"".join(spans)}</div>'
    )
