"""What a page shows before anything was run: what its address names, or a sample."""

from __future__ import annotations

import hashlib
import io
from importlib.resources import files

import streamlit as st

from skipviz.app.components.run_button import PATHS, follow, jobs
from skipviz.app.frame.stored import request_of
from skipviz.app.jobs import ForgottenError, Request
from skipviz.app.state import on_canvas, state
from skipviz.app.worker import Job
from skipviz.readings.paths import shallowest_token
from skipviz.traces import Trace

SAMPLE_TRACE = "prose.parquet"
"""Of ``prose.txt``, beside it: ``skipviz trace prose.txt --parquet prose.parquet``."""


def open_at_start() -> Request | None:
    """Let a session that has run nothing show the sample; return what its address names instead."""
    run = state().runs.get(PATHS)
    if run is not None:
        if is_sample(run.request) and isinstance(run.problem, ForgottenError):
            show_request(run.request)
        return None
    known = jobs().named(st.query_params.get("trace", ""))
    if known is not None and not is_sample(known):
        return known
    request, trace = sample()
    show_request(request)
    named = st.query_params.get("trace")
    state().lost_address = named not in (None, request.address)
    if named != request.address:  # else it says what is selected, or nothing
        on_canvas(request).ask(shallowest_token(trace))
    return None


def show_request(request: Request) -> None:
    """Show a request's trace, which is run where it is no longer kept; the sample never is."""
    follow(PATHS, lambda: asked_for(request), asked=request.key, request=request)
    state().documents = request.documents


def asked_for(request: Request) -> Job[Trace]:
    """Submit a request; the sample is never run."""
    if is_sample(request):
        jobs().keep(*sample())
    return jobs().submit(request)


def show_sample() -> None:
    """Show the sample."""
    show_request(sample()[0])


@st.cache_resource
def sample() -> tuple[Request, Trace]:
    """Return the trace that comes with skipviz, behind the request that it is the result of."""
    content = (files("skipviz.app") / "samples" / SAMPLE_TRACE).read_bytes()
    trace = Trace.load(io.BytesIO(content))
    return request_of(trace, stored=hashlib.sha256(content).hexdigest()), trace


def is_sample(request: Request) -> bool:
    """Say whether a request is that of the sample."""
    return request.stored is not None and request.stored == sample()[0].stored


def no_text_yet() -> None:
    """Say that there is no text to look at, and offer the sample."""
    st.info("Trace a text first: enter one in the side bar. Or look at a sample.")
    st.button("Show the sample", on_click=show_sample, key="show the sample")
