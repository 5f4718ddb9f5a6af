"""Sets up the app and its pages."""

from __future__ import annotations

import streamlit as st

from skipviz.app.views import (
    attribution_page,
    audit_page,
    checkup_page,
    clusters_page,
    corpus_page,
    cost_page,
    generate_page,
    layers_page,
    paths_page,
    policies_page,
    robustness_page,
    what_if_page,
)

PAGES = {
    "Skip paths": paths_page,
    "What if": what_if_page,
    "Generate": generate_page,
    "Audit": audit_page,
    "Attribution": attribution_page,
    "Clusters": clusters_page,
    "Layers": layers_page,
    "Robustness": robustness_page,
    "Policies": policies_page,
    "Cost": cost_page,
    "Corpus": corpus_page,
    "Check-up": checkup_page,
}
"""The pages by their titles; the first opens at the start."""


def run() -> None:
    """Build the app."""
    st.set_page_config(page_title="skipviz", page_icon="🪜", layout="wide")
    first, *_ = PAGES.values()
    pages = [
        st.Page(
            view.page,
            title=title,
            url_path=view.__name__.rpartition(".")[2].removesuffix("_page"),
            default=view is first,
        )
        for title, view in PAGES.items()
    ]
    st.navigation(pages, position="top").run()
