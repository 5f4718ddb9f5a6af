"""A row of key figures, each with its meaning; on a narrow page it takes several lines."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from skipviz.app.components.plain_text import plain


def key_figures(cells: Sequence[tuple[str, str, str]]) -> None:
    """Show figures whole, however narrow the page.

    Parameters
    ----------
    cells
        Label, value with its unit, and meaning of each.
    """
    with st.container(horizontal=True, gap="medium"):
        for label, value, meaning in cells:
            st.metric(label, value, help=plain(meaning), width="content")


def said_or_unknown(value: float | None, form: str, unit: str = "") -> str:
    """Return a number as text, with its unit; None is unknown."""
    return "unknown" if value is None else f"{value:{form}}{unit}"
