"""A run as a page shows it: the button, how far it is, a way to stop it, and what went wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.jobs import Job, Jobs, Request
from skipviz.app.state import StartedRun, state
from skipviz.errors import MissingExtraError, SkipvizError, Stopped
from skipviz.log import LOG, start_log
from skipviz.traces import Trace

PATHS = "paths"
"""The run of the page of skip paths, on which the other pages build."""

Result = TypeVar("Result")


@st.cache_resource
def jobs() -> Jobs:
    """Return the one worker of this server; its faults go to the log, if one is named."""
    start_log()
    return Jobs()


def follow(name: str, start: Callable[[], Job[Any]], *, asked: object) -> None:
    """Start a run, or join it, and keep it in this session; the one before is left.

    Parameters
    ----------
    name
        Of the run.
    start
        Starts it, or finds the job that already does the same.
    asked
        What the result depends on.
    """
    me = f"{state().session} {name}"
    before = state().runs.get(name)
    job = start()
    if not job.follow(me):  # its last follower left it just now
        job = start()
        job.follow(me)
    state().runs[name] = StartedRun(job, asked)
    if before is not None and before.job is not job:
        before.job.leave(me)


def outcome(name: str, *, asked: object) -> Any | None:
    """Return the result of a run; until it is there, show how far it is, or what went wrong.

    Parameters
    ----------
    name
        Of the run.
    asked
        What the page asks for now; the result of anything else is not shown.
    """
    run = state().runs.get(name)
    if run is None:
        return None
    if not run.job.future.done():
        if run.asked != asked:
            st.caption("An earlier run is still in progress.")
        wait(run.job)
        return None
    if run.asked != asked:
        return None
    if (error := run.job.problem) is not None:
        explain(error)
        return None
    return run.job.future.result()


def tried(
    name: str,
    label: str,
    request: Request,
    start: Callable[[], Job[Result]],
    *,
    settings: str = "",
) -> Result | None:
    """Show a button and the run it starts; return the result, once it is there.

    Parameters
    ----------
    name
        Of the run.
    label
        On the button.
    request
        What was traced.
    start
        Starts the run, or finds it.
    settings
        Whatever else the result depends on.
    """
    asked = (request.key, settings)
    if st.button(label, type="primary", key=f"try {name}"):
        follow(name, start, asked=asked)
    result: Result | None = outcome(name, asked=asked)
    return result


def computed(
    name: str, label: str, request: Request, start: Callable[[], Job[Result]]
) -> Result | None:
    """Start a run without being asked; return the result, once it is there.

    Parameters
    ----------
    name, request, start
        As for ``tried``.
    label
        On the button that starts it again if it failed or was stopped.
    """
    asked = request.key

    def begin() -> None:
        follow(name, start, asked=asked)

    run = state().runs.get(name)
    if run is None or run.asked != asked:
        begin()
    result: Result | None = outcome(name, asked=asked)
    job = state().runs[name].job
    if job.future.done() and job.problem is not None:
        st.button(label, type="primary", key=f"again {name}", on_click=begin)
    return result


def traced_now() -> tuple[Request, Trace] | None:
    """Return what the page of skip paths traced last, if it is there.

    The request is for the weights that the trace is of: the model's folder may have been written
    anew since, and what follows from the trace must not be kept as that of another model.
    """
    run, request = state().runs.get(PATHS), state().request
    if run is None or request is None or not run.job.future.done() or run.job.problem is not None:
        return None
    traced: Trace = run.job.future.result()
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
    """Say what went wrong: what the user can change in a sentence, anything else as our fault."""
    if isinstance(error, Stopped):
        st.info("Stopped. Press the button to run it again.")
    elif isinstance(error, MissingExtraError):  # says how to install it
        st.info(plain(str(error)))
    elif isinstance(error, SkipvizError):
        st.error(plain(str(error)))
    else:
        st.error(fault(error))


def fault(error: BaseException) -> str:
    """Return what a page says of an error that no user can mend, in Markdown."""
    log = os.environ.get(LOG)
    where = (
        f"The log, {plain(log)}, has the details."
        if log
        else "The terminal in which skipviz runs has the details; to keep them in a file, set the "
        f"environment variable {plain(LOG)} to its name and start skipviz again."
    )
    return (
        f"This is a fault in skipviz, not in your text or settings ({type(error).__name__}: "
        f"{plain(str(error))}). {where}"
    )
