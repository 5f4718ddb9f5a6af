"""A run as a page shows it: how far it is, a stop button, what went wrong."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.jobs import Job, Jobs, Request
from skipviz.errors import ModelError, Stopped, TextError
from skipviz.traces import Trace


@st.cache_resource
def jobs() -> Jobs:
    """Return the one worker of this server."""
    return Jobs()


def follow(name: str, start: Callable[[], Job[Any]]) -> None:
    """Start a job, or join it, and keep it in this session under a name; the one before is left."""
    me = f"{st.session_state.setdefault('session', uuid.uuid4().hex)} {name}"
    before: Job[Any] | None = st.session_state.get(name)
    job = start()
    if not job.follow(me):  # its last follower left it just now
        job = start()
        job.follow(me)
    st.session_state[name] = job
    if before is not None and before is not job:
        before.leave(me)


def traced_now() -> tuple[Request, Trace] | None:
    """Return what the page of skip paths traced last, if it is there.

    The request is for the weights that the trace is of: the model's folder may have been written
    anew since, and what follows from the trace must not be kept as that of another model.
    """
    job: Job[Trace] | None = st.session_state.get("job")
    if job is None or not job.future.done() or job.problem is not None:
        return None
    traced, request = job.future.result(), st.session_state.request
    return replace(request, weights=traced.run["weights_sha256"].item()), traced


@st.fragment(run_every=0.5)
def wait(job: Job[Any]) -> None:
    """Show how far a run is until it is done."""
    if job.future.done():
        st.rerun()
    stopping = job.stop.is_set()
    st.progress(job.share, text=f"{'Stopping' if stopping else job.stage}: {job.share:.0%}")
    st.button("Stop", key=f"stop {id(job)}", disabled=stopping, on_click=job.halt)


def explain(error: BaseException) -> None:
    """Say what went wrong, in a sentence."""
    if isinstance(error, Stopped):
        st.info("Stopped. Press the button to run it again.")
    elif isinstance(error, ImportError):  # of an extra, which it says how to install
        st.info(plain(str(error)))
    elif isinstance(error, TextError | ModelError | ValueError):
        st.error(plain(str(error)))
    else:
        st.error(
            f"The run failed ({type(error).__name__}: {plain(str(error))}). Your text is kept; try "
            "a shorter one or another model."
        )
