"""Sets up the app and its pages."""

from __future__ import annotations

import streamlit as st

from skipviz.app.paths_page import page


def run() -> None:
    """Build the app."""
    st.set_page_config(page_title="skipviz", page_icon="🪜", layout="wide")
    st.navigation([st.Page(page, title="Skip paths", default=True)], position="hidden").run()
