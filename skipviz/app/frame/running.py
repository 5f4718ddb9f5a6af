"""What runs for this session elsewhere than on the page in view, and a way to stop it."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import give_up, how_far, jobs
from skipviz.app.state import state


def show_elsewhere() -> None:
    """List the runs that this session waits for, but for those that the page itself shows."""
    names = [
        name
        for name, run in state().runs.items()
        if run.under_way and name not in state().waits_shown
    ]
    if names:
        _list(names)


@st.fragment(run_every=0.5)
def _list(names: list[str]) -> None:
    """Show each run until one of them is done: then the page is drawn anew."""
    runs = state().runs
    if any(name not in runs or not runs[name].under_way for name in names):
        st.rerun()
    for name in names:
        job = runs[name].job
        # The name of a folder is in it.
        st.progress(job.share, text=plain(how_far(job, before=jobs().before(job))))
        if st.button("Stop", key=f"halt {name}"):
            give_up(name)
            st.rerun()
