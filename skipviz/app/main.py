"""Sets up the app and its pages."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import streamlit as st

from skipviz.app.frame import frame

PAGES = {
    "Skip paths": "paths",
    "What if": "what_if",
    "Compare": "compare",
    "Generate": "generate",
    "Audit": "audit",
    "Attribution": "attribution",
    "Clusters": "clusters",
    "Layers": "layers",
    "Robustness": "robustness",
    "Policies": "policies",
    "Cost": "cost",
    "Corpus": "corpus",
    "Check-up": "checkup",
}
"""The names of the pages by their titles; the first opens at the start."""


def run() -> None:
    """Build the app."""
    st.set_page_config(page_title="skipviz", page_icon="🪜", layout="wide")
    first = next(iter(PAGES))
    pages = {
        name: st.Page(_page(name), title=title, url_path=name, default=title == first)
        for title, name in PAGES.items()
    }
    chosen = st.navigation(list(pages.values()), position="top")

    def go_to(name: str) -> None:
        if chosen.title != pages[name].title:
            st.switch_page(pages[name], query_params=st.query_params.to_dict())

    frame.draw_in_frame(chosen.run, go_to)


def _page(name: str) -> Callable[[], None]:
    """Return what draws a page; its module is imported when it is opened."""

    def draw() -> None:
        import_module(f"skipviz.app.views.{name}_page").page()

    draw.__name__ = name  # Streamlit tells pages by it
    return draw
