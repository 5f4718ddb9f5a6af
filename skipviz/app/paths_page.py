"""The page of skip paths: a text in, which layers each token used out."""

from __future__ import annotations

import streamlit as st

from skipviz.app.inputs import choose
from skipviz.app.jobs import Job, Jobs
from skipviz.app.results import show
from skipviz.models import ModelError
from skipviz.recording.tracing import Stopped
from skipviz.texts import TextError


@st.cache_resource
def jobs() -> Jobs:
    """Return the one worker of this server."""
    return Jobs()


def page() -> None:
    """Show the input, the run under way, and what came out."""
    request = choose()
    if request is not None:
        st.session_state.job = jobs().submit(request)
        st.session_state.job_key = request.key
    job: Job | None = st.session_state.get("job")
    if job is None:
        _welcome()
    elif not job.future.done():
        _wait(job)
    elif (error := job.future.exception()) is not None:
        _explain(error)
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


@st.fragment(run_every=0.5)
def _wait(job: Job) -> None:
    if job.future.done():
        st.rerun()
    st.progress(job.share, text=f"{job.stage}: {job.share:.0%}")
    if st.button("Stop", key="stop"):
        job.stop.set()
        st.caption("Stopping after this layer.")


def _explain(error: BaseException) -> None:
    if isinstance(error, Stopped):
        st.info("Stopped. Press “Trace the text” to run it again.")
    elif isinstance(error, TextError | ModelError | ValueError):
        st.error(str(error))
    else:
        st.error(
            f"The run failed ({type(error).__name__}: {error}). Your text is still on the left; "
            "try a shorter one or another model."
        )
