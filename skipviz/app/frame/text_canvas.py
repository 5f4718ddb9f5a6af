"""The canvas of the text traced last, above every page."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.canvas import canvas
from skipviz.app.components.canvas_payload import found_payload, trace_payload
from skipviz.app.components.run_button import jobs
from skipviz.app.frame.opening import show_request
from skipviz.app.jobs import Request
from skipviz.app.state import on_canvas, state, widget
from skipviz.traces import Trace

CANVAS = "canvas"
MOST_SHOWN = 200_000
"""Tokens that a canvas can hold."""


def text_canvas(request: Request, trace: Trace, *, address: str) -> None:
    """Show a text, its map and the selected token's path, and keep what is selected.

    Parameters
    ----------
    request, trace
        As pages have them.
    address
        What names them in the page's address.
    """
    if len(trace) > MOST_SHOWN:
        st.info(
            f"The text has {len(trace):,} tokens; at most {MOST_SHOWN:,} can be shown one by one. "
            "The figures and downloads below cover all of them. To see single tokens, trace a part."
        )
        return
    key, on = request.key, on_canvas(request)
    sent = jobs().made(
        f"canvas {address} {key}",
        lambda: trace_payload(trace, key=key, compact=True, address=address),
    )
    found = jobs().made(
        f"found on canvas {key} {on.made_from}",
        lambda: found_payload(
            trace,
            sent,
            lenses=[lens for _, lens in on.lenses.values()],
            marks=None if on.marks is None else on.marks[1],
        ),
    )
    with st.container(key="workbench"):
        shown = sent | found | ({} if on.asked is None else {"select": on.asked})
        on.take(canvas(shown, key=CANVAS, on_pick=_picked, on_address=_went_back))


def _picked() -> None:
    """Let the page know of a cell that was clicked."""
    state().picked = getattr(widget(CANVAS), "cell", None)


def _went_back() -> None:
    """Show the trace that the address names since someone went back to it."""
    known = jobs().named(str(getattr(widget(CANVAS), "address", "")))
    if known is None:
        st.toast("The trace of that address is no longer known here. What was shown stays.")
    else:
        show_request(known)
