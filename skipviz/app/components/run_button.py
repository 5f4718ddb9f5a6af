"""A run as a page shows it: the button, how far it is, a way to stop it, and what went wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import replace
from typing import Any, TypeVar

import streamlit as st

from skipviz.app.components.durations import all_take, in_words, takes
from skipviz.app.components.plain_text import plain
from skipviz.app.costs import Effort
from skipviz.app.jobs import ForgottenError, Jobs, Request, kept_result
from skipviz.app.sessions import this_session
from skipviz.app.state import OfferedRun, StartedRun, state
from skipviz.app.worker import Job
from skipviz.errors import MissingExtraError, SkipvizError, Stopped
from skipviz.log import LOG, start_log
from skipviz.traces import Trace

PATHS = "paths"
"""The run of the text, on which every page builds."""
POLL_SECONDS = 0.2
"""Between two looks at how far a run is that the page waits for."""
SHORT_SECONDS = 3.0
"""For which the text's run is waited for before the page is drawn again."""
SHORT_TOLD_SECONDS = 0.8
"""Between two times that this waiting says how far the run is: a browser takes time to draw it,
which on two cores is time that the run has not."""

Result = TypeVar("Result")


@st.cache_resource
def jobs() -> Jobs:
    """Return the one worker of this server; its faults go to the log, if one is named."""
    start_log()
    return Jobs()


def follow(name: str, start: Callable[[], Job[Any]], *, asked: object, request: Request) -> None:
    """Start a run, or join it, and keep it in this session; the one before is left.

    Parameters
    ----------
    name
        Of the run.
    start
        Starts it, or finds the job that already does the same.
    asked
        What the result depends on.
    request
        What it is a run of.
    """
    session = this_session()
    before = state().runs.get(name)
    job = start()
    if not job.follow(session, name):  # its last follower left it just now
        job = start()
        job.follow(session, name)
    shown = None if before is None else before.finished
    state().runs[name] = StartedRun(
        job, asked, request, before=None if shown is None else replace(shown, before=None)
    )
    if before is not None and before.job is not job:
        before.job.leave(session, name)


def give_up(name: str) -> None:
    """Wait no longer for a run; it is stopped unless others wait for it."""
    run = state().runs[name]
    if run.under_way:
        state().runs[name] = replace(run, stopped=True)
        run.job.leave(this_session(), name)


def outcome(name: str, *, asked: object) -> Any | None:
    """Return the result of a run; until it is there, show how far it is, or what went wrong.

    Parameters
    ----------
    name
        Of the run.
    asked
        What the page asks for now; the result of anything else is not shown. What was shown
        before a run that was stopped, or failed, is shown again.
    """
    run = state().runs.get(name)
    if run is None:
        return None
    if run.under_way:
        state().waits_shown.add(name)
        if run.asked != asked:
            st.caption("An earlier run is still in progress.")
        wait(run.job, name)
        return None
    finished = run.finished
    if finished is not run and run.asked == asked and (error := run.problem) is not None:
        explain(error)
    if finished is None or finished.asked != asked:
        return None
    jobs().look_at(finished.job)
    return kept_result(finished.job)


def tried(
    name: str,
    label: str,
    request: Request,
    start: Callable[[], Job[Result]],
    *,
    settings: str = "",
    effort: Effort | None = None,
) -> Result | None:
    """Show a button with what its run takes, and the run; return the result, once it is there.

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
    effort
        What the run costs; if not given, as much as runs of this name on as many characters.
    """
    asked = (request.key, settings)
    cost = effort or request.effort_of(name)

    def begin() -> None:
        follow(name, start, asked=asked, request=request)
        job = state().runs[name].job
        job.effort = job.effort or cost

    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(label, type="primary", key=f"try {name}"):
            begin()
        beside = st.container()
    result: Result | None = outcome(name, asked=asked)
    if result is None and not state().runs_under_way(name):
        seconds = jobs().costs.seconds(cost)
        said = takes(seconds)
        beside.caption(f"{said[0].upper()}{said[1:]}.")
        state().offered[label] = OfferedRun(begin, seconds)
    return result


def offer_all() -> None:
    """Offer to start everything that the page offers and that is not done, at one click."""
    offered = dict(state().offered)
    if len(offered) < 2:
        return

    def begin_all() -> None:
        for each in offered.values():
            each.begin()

    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            f"Run all {len(offered)}", key="run all", on_click=begin_all,
            help=plain(f"One after the other: {', '.join(offered)}. Each can be stopped."),
        )  # fmt: skip
        st.caption(plain(all_take({name: each.seconds for name, each in offered.items()})))


def computed(
    name: str,
    label: str,
    request: Request,
    start: Callable[[], Job[Result]],
    *,
    settings: str = "",
) -> Result | None:
    """Start a run without being asked; return the result, once it is there.

    Parameters
    ----------
    name, request, start, settings
        As for ``tried``.
    label
        On the button that starts it again if it failed or was stopped.
    """
    asked = (request.key, settings)

    def begin() -> None:
        follow(name, start, asked=asked, request=request)

    run = state().runs.get(name)
    if run is None or run.asked != asked or isinstance(run.problem, ForgottenError):
        begin()
    result: Result | None = outcome(name, asked=asked)
    run = state().runs[name]
    if run.problem is not None:
        st.button(label, type="primary", key=f"again {name}", on_click=begin)
    return result


def traced_now() -> tuple[Request, Trace] | None:
    """Return the text that was traced last, if its trace is there.

    The request is for the weights and the setup that the trace is of: the model's folder may have
    been written anew since, and what follows from the trace must not be kept as that of another
    model.
    """
    run = state().runs.get(PATHS)
    shown = None if run is None else run.finished
    traced: Trace | None = None if shown is None else kept_result(shown.job)
    if shown is None or traced is None:
        return None
    jobs().look_at(shown.job)
    weights, setup = traced.run.select("weights_sha256", "setup_sha256").row(0)
    return replace(shown.request, weights=weights, setup=setup), traced


@st.fragment(run_every=POLL_SECONDS)
def wait(job: Job[Any], name: str) -> None:
    """Show how far a run is until it is done."""
    if job.future.done():
        st.rerun()
    # The name of a folder is in it.
    st.progress(job.share, text=plain(how_far(job, before=jobs().before(job))))
    if st.button("Stop", key=f"stop {name}"):
        give_up(name)
        st.rerun()


def wait_shortly(name: str) -> None:
    """Wait for a run that was just asked for, so that one soon done is shown without detours.

    Meanwhile the browser shows the page as it was. A page that is drawn again while its text is run
    takes time from the run, and is out of date when it is there.
    """
    run, end = state().runs[name], time.monotonic() + SHORT_SECONDS
    if not run.under_way:
        return
    place = st.empty()
    with place.container():
        bar = st.progress(0.0)
        st.button("Stop", key=f"stop at once {name}", on_click=give_up, args=(name,))
    told = time.monotonic()
    while run.under_way and time.monotonic() < end:
        futures.wait([run.job.future], POLL_SECONDS)
        state()  # looked up, since that is where the press of a button ends the waiting
        if time.monotonic() >= told + SHORT_TOLD_SECONDS:
            told = time.monotonic()  # the name of a folder is in what is said
            bar.progress(run.job.share, text=plain(how_far(run.job, before=jobs().before(run.job))))
    place.empty()


def how_far(job: Job[Any], *, before: int) -> str:
    """Return in words where a run stands.

    Parameters
    ----------
    job
        The run.
    before
        How many runs come before it.
    """
    if before:
        return f"Waiting: {before} run{'' if before == 1 else 's'} before yours"
    words = job.stage
    if job.share:
        words += f": {job.share:.1%}"
    if (left := job.seconds_left) is not None:
        words += f", about {in_words(left)} left"
    return words


def explain(error: BaseException) -> None:
    """Say what went wrong: what the user can change in a sentence, anything else as our fault."""
    if isinstance(error, Stopped):
        st.info(problem_words(error))
    elif isinstance(error, ForgottenError):
        st.info(str(error))
    elif isinstance(error, MissingExtraError):  # says how to install it
        st.info(plain(str(error)))
    else:
        st.error(plain(problem_words(error)))


def problem_words(error: BaseException) -> str:
    """Return what went wrong as plain text: where no user can mend it, where to look."""
    if isinstance(error, Stopped):
        return "Stopped. Press the button to run it again."
    if isinstance(error, SkipvizError):
        return str(error)
    log = os.environ.get(LOG)
    where = (
        f"The log, {log}, has the details."
        if log
        else "The terminal in which skipviz runs has the details; to keep them in a file, set the "
        f"environment variable {LOG} to its name and start skipviz again."
    )
    return (
        f"This is a fault in skipviz, not in your text or settings ({type(error).__name__}: "
        f"{error}). {where}"
    )
