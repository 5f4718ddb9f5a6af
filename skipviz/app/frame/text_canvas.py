"""The canvas of the text traced last, above every page."""

from __future__ import annotations

from functools import partial

import streamlit as st

from skipviz.app.cell_answers import (
    add_audit,
    ask_flip,
    flip_payload,
    no_flips,
    question_payload,
)
from skipviz.app.components.canvas import canvas
from skipviz.app.components.canvas_beside import hand_over
from skipviz.app.components.canvas_payload import lens_payload, payload
from skipviz.app.components.run_button import jobs, traced_now
from skipviz.app.frame.recent_runs import bring_back
from skipviz.app.jobs import Request
from skipviz.app.on_canvas import OnCanvas
from skipviz.app.state import on_canvas, state, widget
from skipviz.readings.paths import shallowest_token
from skipviz.traces import Trace

CANVAS = "canvas"
BESIDE = "beside_canvas"
"""Where the parts of what stands on the canvas are, which show nothing themselves."""
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
    add_audit(request, trace, on)
    sent = jobs().made(
        f"canvas {address} {key}",
        lambda: payload(
            trace,
            key=key,
            compact=True,
            address=address,
            selected=shallowest_token(trace) if len(trace) else None,
        ),
    )
    with st.container(key="workbench"):
        on.take(
            canvas(
                sent,
                key=CANVAS,
                on_pick=_picked,
                on_flip=_asked_flip,
                no_flips=no_flips(trace),
                on_address=_went_back,
            )
        )
    with st.container(key=BESIDE):
        st.html(f"<style>.st-key-{BESIDE} {{ display: none; }}</style>")
        _hand_over(request, trace, on)


def _hand_over(request: Request, trace: Trace, on: OnCanvas) -> None:
    """Hand the canvas what stands on it beside the trace."""
    key = request.key
    for name, (source, lens) in on.lenses.items():
        fresh = on.fresh[1] if on.fresh[0] == name else None
        made = jobs().made(
            f"lens on canvas {key} {name} {source}", partial(lens_payload, trace, lens, key=key)
        )
        hand_over(made | {"fresh": fresh})
    for found in (question_payload(request, on), flip_payload(request)):
        if found is not None:
            hand_over(found)
    hand_over({"key": key, "name": "asked", "select": on.asked, "rangeClears": on.range_clears})


def _asked_flip() -> None:
    """Begin to answer what flipping a decision would do."""
    asked = getattr(widget(CANVAS), "flip", None)
    known = traced_now()
    if asked is not None and known is not None and asked[0] == known[0].key:
        ask_flip(*known, int(asked[1]), int(asked[2]))


def _picked() -> None:
    """Let the page know of a cell that was clicked."""
    state().picked = getattr(widget(CANVAS), "cell", None)


def _went_back() -> None:
    """Show the trace that the address names since someone went back to it."""
    known = jobs().named(str(getattr(widget(CANVAS), "address", "")))
    if known is None:
        st.toast("The trace of that address is no longer known here. What was shown stays.")
    else:
        bring_back(known)
