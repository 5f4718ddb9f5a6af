"""Sets up the app and its pages."""

from __future__ import annotations

import streamlit as st

from skipviz.app.views import (
    attribution_page,
    audit_page,
    clusters_page,
    layers_page,
    paths_page,
    policies_page,
    robustness_page,
)


def run() -> None:
    """Build the app."""
    st.set_page_config(page_title="skipviz", page_icon="🪜", layout="wide")
    pages = [
        st.Page(paths_page.page, title="Skip paths", url_path="paths", default=True),
        st.Page(audit_page.page, title="Audit", url_path="audit"),
        st.Page(attribution_page.page, title="Attribution", url_path="attribution"),
        st.Page(clusters_page.page, title="Clusters", url_path="clusters"),
        st.Page(layers_page.page, title="Layers", url_path="layers"),
        st.Page(robustness_page.page, title="Robustness", url_path="robustness"),
        st.Page(policies_page.page, title="Policies", url_path="policies"),
    ]
    st.navigation(pages, position="top").run()
