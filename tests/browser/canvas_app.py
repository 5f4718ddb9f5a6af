"""The canvas alone, with planted numbers: no model is run."""

from __future__ import annotations

import numpy as np
import streamlit as st

from skipviz.app.components.canvas import canvas
from skipviz.app.components.canvas_payload import found_payload, trace_payload
from skipviz.plots.lenses.lens import Lens
from tests.synthetic import make_trace

TOKENS = 60
TRACES = {"one": make_trace(tokens=TOKENS), "two": make_trace(tokens=TOKENS, seed=1)}


def planted() -> Lens:
    """Numbers of both signs, the last of them unknown."""
    return Lens(
        name="planted", unit="", scale="diverging", ends=(-4.0, 4.0), colours="change",
        values=np.append(np.linspace(-2.0, 4.0, TOKENS - 1), np.nan).astype(np.float32),
    )  # fmt: skip


if __name__ == "__main__":
    st.set_page_config(layout="wide")
    named = st.radio("Text", list(TRACES))
    lenses = [planted()] if st.toggle("More lenses") else []
    trace = TRACES[str(named)]
    sent = trace_payload(trace, key=str(named), address=f"hash-{named}")
    found = canvas(sent | found_payload(trace, sent, lenses=lenses), key="canvas")
    # On its own line, so that a test reads it as text.
    st.text(f"token {found.token} site {found.site}")
