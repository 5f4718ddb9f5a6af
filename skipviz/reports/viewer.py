"""The text and the map of a trace for a page without Python."""

from __future__ import annotations

from skipviz.plots.colored_text import token_html
from skipviz.traces import Trace


def viewer(trace: Trace) -> str:
    """Return the text of a trace as HTML."""
    return token_html(trace)
