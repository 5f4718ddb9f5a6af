"""The head of a page: what it answers, and the words it uses."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.glossary import GLOSSARY


def heading(title: str, *terms: str) -> None:
    """Show the title of a page and, at the press of a button, what its terms mean.

    Parameters
    ----------
    title
        The question that the page answers.
    terms
        Terms of the glossary.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.header(title)
        with st.popover("Words", width="content"):
            for term in terms:
                st.markdown(f"**{plain(term)}**: {plain(GLOSSARY[term])}")
