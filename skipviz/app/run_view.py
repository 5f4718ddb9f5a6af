"""A run as a page shows it: how far it is, a stop button, what went wrong."""

from __future__ import annotations

from typing import Any

import streamlit as st

from skipviz.app.jobs import Job, Jobs
from skipviz.app.plain_text import plain
from skipviz.models import ModelError
from skipviz.recording.tracing import Stopped
from skipviz.texts import TextError
from skipviz.trace import Trace


@st.cache_resource
def jobs() -> Jobs:
    """Return the one worker of this server."""
    return Jobs()


def traced_now() -> Trace | None:
    """Return what the page of skip paths traced last, if it is there."""
    job: Job[Trace] | None = st.session_state.get("job")
    if job is None or not job.future.done() or job.future.exception() is not None:
        return None
    return job.future.result()


@st.fragment(run_every=0.5)
def wait(job: Job[Any]) -> None:
    """Show how far a run is until it is done."""
    if job.future.done():
        st.rerun()
    st.progress(job.share, text=f"{job.stage}: {job.share:.0%}")
    if st.button("Stop", key=f"stop {id(job)}"):
        job.stop.set()
        st.caption("Stopping after this layer.")


def explain(error: BaseException) -> None:
    """Say what went wrong, in a sentence."""
    if isinstance(error, Stopped):
        st.info("Stopped. Press the button to run it again.")
    elif isinstance(error, TextError | ModelError | ValueError | ImportError):
        st.error(plain(str(error)))
    else:
        st.error(
            f"The run failed ({type(error).__name__}: {plain(str(error))}). Your text is kept; try "
            "a shorter one or another model."
        )
