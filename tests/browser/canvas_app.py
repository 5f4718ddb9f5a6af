"""The canvas alone, with planted numbers: no model is run."""

from __future__ import annotations

import numpy as np
import polars as pl
import streamlit as st

from skipviz.app.components.canvas import canvas
from skipviz.app.components.canvas_payload import payload
from skipviz.plots.lenses.found import column_lens
from tests.synthetic import make_trace

TOKENS = 60
TRACES = {"one": make_trace(tokens=TOKENS), "two": make_trace(tokens=TOKENS, seed=1)}


def planted() -> np.ndarray:
    """Numbers of both signs, the last of them unknown."""
    return np.append(np.linspace(-2.0, 4.0, TOKENS - 1), np.nan)


if __name__ == "__main__":
    st.set_page_config(layout="wide")
    named = st.radio("Text", list(TRACES))
    lenses = [column_lens("planted", pl.Series(planted()))] if st.toggle("More lenses") else []
    sent = payload(TRACES[str(named)], key=str(named), lenses=lenses, address=f"hash-{named}")
    found = canvas(sent, key="canvas")
    # On its own line, so that a test reads it as text.
    st.text(
        f"token {found.token} site {found.site} range {found.first} {found.last} "
        f"pins {list(found.pins)}"
    )
