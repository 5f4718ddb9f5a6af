"""Two corpora of the same texts beside each other."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from skipviz.app.components.downloads import csv_buttons
from skipviz.app.components.plain_text import plain
from skipviz.corpus.questions.comparison import compare_corpora
from skipviz.corpus.reading.root import open_below
from skipviz.readings.corpus import comparison_reading


def compare_with(root: Path, others: list[str], name: str) -> None:
    """Let another corpus be chosen, and show how it differs."""
    if not others:
        st.info("There is no other corpus to compare this one with.")
        return
    other = st.selectbox("Compare with", others, key="corpus_other")
    if not st.button("Compare", type="primary", key="corpus_compare"):
        return
    with st.spinner("Comparing documents"):
        found = compare_corpora(open_below(root, name), open_below(root, str(other)))
    st.markdown(plain(comparison_reading(found.means)))
    st.dataframe(found.means, hide_index=True)
    csv_buttons({"Means": ("compared", found.means), "Documents": ("documents", found.documents)})
