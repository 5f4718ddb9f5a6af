"""The head of a page: what it answers, and the words it uses."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import traced_now
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.skipping import skipping_notes
from skipviz.traces import Trace


def heading(title: str, *terms: str, of_text: bool = True) -> DeltaGenerator:
    """Show the title of a page and, at the press of a button, what its terms mean.

    Below it stands what must be known of how the model of the text skips.

    Parameters
    ----------
    title
        The question that the page answers.
    terms
        Terms of the glossary.
    of_text
        Whether the page is about the text that was traced last.

    Returns
    -------
    DeltaGenerator
        The place of the answer, at the top of the page.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.header(title)
        with st.popover("Words", width="content"):
            for term in terms:
                st.markdown(f"**{plain(term)}**: {plain(GLOSSARY[term])}")
    known = traced_now() if of_text else None
    if known is not None:
        skipping_badges(known[1])
    return st.container()


def skipping_badges(trace: Trace) -> None:
    """Show what must be known of how the model of a trace skips, to read its figures."""
    if notes := skipping_notes(trace):
        with st.container(horizontal=True):
            for note in notes:
                st.badge(note.label, color="orange", help=note.sentence)
