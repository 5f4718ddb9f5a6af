"""The page of skip paths: a text in, which layers each token used out."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.run_button import explain, follow, jobs, wait
from skipviz.app.inputs import choose
from skipviz.app.jobs import Job
from skipviz.app.views.paths_result import show
from skipviz.traces import Trace


def page() -> None:
    """Show the input, the run under way, and what came out."""
    request = choose()
    if request is not None:
        follow("job", lambda: jobs().submit(request))
        st.session_state.job_key = request.key
        st.session_state.request = request
    job: Job[Trace] | None = st.session_state.get("job")
    if job is None:
        _welcome()
    elif not job.future.done():
        wait(job)
    elif (error := job.problem) is not None:
        explain(error)
    else:
        st.session_state.speed = jobs().tokens_per_second
        show(job.future.result(), key=st.session_state.job_key)


def _welcome() -> None:
    st.header("Which layers did each token use?")
    st.markdown(
        "Some transformers decide, token by token, which layers to run. Give a text on the left "
        "and press **Trace the text**: it comes back coloured by the layers each token used, with "
        "a map of every decision and the gate scores behind it."
    )
    st.markdown(
        "- **Click a token** (or use the arrow keys) to see its path and its likeliest "
        "successors.\n"
        "- **Download** every gate decision as CSV or Parquet.\n"
        "- Nothing leaves this machine."
    )
