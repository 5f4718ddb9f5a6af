"""The canvas alone with planted numbers, for ``benchmarks/page.py``: no model is run."""

from __future__ import annotations

import os

import streamlit as st

from skipviz.app.components.canvas import canvas
from skipviz.app.components.canvas_payload import payload
from tests.synthetic import make_trace

SITES = tuple(range(1, 31))


@st.cache_resource
def sent(tokens: int) -> dict[str, object]:
    """Return the payload of a trace of so many tokens and 60 sites."""
    return payload(make_trace(tokens=tokens, layers=32, gated=SITES), key=str(tokens))


if __name__ == "__main__":
    st.set_page_config(layout="wide")
    canvas(sent(int(os.environ["CANVAS_TOKENS"])), key="canvas")
