"""The canvas alone, with planted numbers: no model is run."""

from __future__ import annotations

import numpy as np
import polars as pl
import streamlit as st

from skipviz.analysis.counterfactual import dependent_sites
from skipviz.app.components.canvas import canvas
from skipviz.app.components.canvas_beside import hand_over
from skipviz.app.components.canvas_payload import changed_payload, lens_payload, payload
from skipviz.app.on_canvas import OnCanvas
from skipviz.plots.lenses.lens import Lens
from skipviz.plots.lenses.own import own_lens
from tests.synthetic import make_trace

TOKENS = 60
TRACES = {
    "one": make_trace(tokens=TOKENS),
    "two": make_trace(tokens=TOKENS, seed=1),
    "few": make_trace(tokens=TOKENS, layers=2, gated=(1,), units=("block",)),
}


def planted() -> Lens:
    """Numbers of both signs, the last of them unknown."""
    return Lens(
        name="planted", unit="", scale="diverging", ends=(-4.0, 4.0), colours="change",
        values=np.append(np.linspace(-2.0, 4.0, TOKENS - 1), np.nan).astype(np.float32),
    )  # fmt: skip


def exact() -> Lens:
    """Numbers of many digits, as a user may bring, one of them missing."""
    days = [20260101.0 + token / 4 for token in range(TOKENS - 1)]
    return own_lens(pl.Series("day", [*days, None]))


def answer(cell: tuple[int, int]) -> dict[str, object]:
    """An answer to a flip, after which one decision above it is another."""
    sites = TRACES["one"].sites
    marks = np.zeros((TOKENS, sites.height), dtype=np.uint8)
    marks[cell], marks[cell[0] + 2, -1] = 1, 2
    return changed_payload(
        marks, key="one", name="flip", cell=cell, stays=False,
        cone=dependent_sites(sites, cell[1]), words=["Skipping it would raise the loss."],
    )  # fmt: skip


if __name__ == "__main__":
    st.set_page_config(layout="wide")
    named = st.radio("Text", list(TRACES))
    trace = TRACES[str(named)]
    sent = payload(trace, key=str(named), address=f"hash-{named}")
    on = st.session_state.setdefault(f"on {named}", OnCanvas())
    on.take(canvas(sent, key="canvas", on_flip=lambda: None))
    found = on.selection
    flip = st.session_state["canvas"].flip
    if flip is not None:
        st.session_state["flipped"] = flip
    if st.toggle("More lenses"):
        hand_over(lens_payload(trace, exact(), key=str(named)))
        hand_over(lens_payload(trace, planted(), key=str(named)))
    if "flipped" in st.session_state:
        key, token, site = st.session_state["flipped"]
        hand_over(answer((token, site)))
    clears = st.session_state.setdefault("clears", 0)
    if st.button("Clear the range"):
        clears = st.session_state["clears"] = clears + 1
    if st.button("Ask for token 30"):
        on.ask(30)
    hand_over({"key": str(named), "name": "asked", "select": on.asked, "rangeClears": clears})
    # On its own line, so that a test reads it as text.
    asked = "" if on.asked is None else " asked"
    st.text(f"token {found.token} site {found.site} range {found.range}{asked}")
