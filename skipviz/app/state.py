"""What a session of the app remembers, in one typed place.

Streamlit keeps the values of widgets itself, by their keys. Everything else that must outlive a
run of a page's script is here, and no other module touches ``st.session_state``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import streamlit as st

from skipviz.app.jobs import Request, kept_result
from skipviz.app.on_canvas import CANVASES, OnCanvas
from skipviz.app.session_file import SavedTrace
from skipviz.app.worker import Job
from skipviz.errors import Stopped
from skipviz.text.documents import Document
from skipviz.traces import Trace

_KEY = "skipviz"


@dataclass(frozen=True)
class StartedRun:
    """A run that this session started.

    Attributes
    ----------
    job
        The run.
    asked
        What its result depends on; a page shows the result only while it asks for the same.
    request
        What it is a run of.
    stopped
        Whether this session stopped it. It may go on for others.
    before
        The run whose result was shown before; it stays if this one is stopped or fails.
    """

    job: Job[Any]
    asked: object
    request: Request
    stopped: bool = False
    before: StartedRun | None = None

    @property
    def under_way(self) -> bool:
        """Whether this session waits for it."""
        return not self.stopped and not self.job.future.done()

    @property
    def problem(self) -> BaseException | None:
        """Why there is no result, where it is not under way."""
        if self.stopped:
            return Stopped()
        return None if self.under_way else self.job.problem

    @property
    def finished(self) -> StartedRun | None:
        """The run whose result is there: this one, or else the one before."""
        for run in (self, self.before):
            if run is not None and not run.stopped and kept_result(run.job) is not None:
                return run
        return None


@dataclass(frozen=True)
class OfferedRun:
    """A run that a page offers.

    Attributes
    ----------
    begin
        Starts it.
    seconds
        How long it takes, as measured here; None before any run of its kind.
    """

    begin: Callable[[], None]
    seconds: float | None


@dataclass
class State:
    """The memory of one session.

    Attributes
    ----------
    runs
        The latest run of each kind, by its name.
    documents
        The texts that were chosen last.
    sidebar
        Values of the side bar's widgets, which Streamlit forgets while they are not shown.
    chosen
        What the side bar asks for, without a text where none is given.
    to_fill_in
        What is shown, until the side bar has its text and settings; None where it has.
    brought_back
        Texts of a run that was brought back which cannot be pasted: several, or a conversation.
        They stand in the place of an upload.
    offered
        The runs that the page in view offers and that are not done, by their buttons.
    waits_shown
        Names of the runs whose progress the page in view shows.
    lost_address
        Whether the address with which the page was opened named a trace that is not known here.
    opened
        Whether the frame has been drawn once.
    tour
        The step at which the tour is, from 0; None where it is not taken.
    tour_page
        The page of a step that was just taken, until the browser shows it.
    just_asked
        Whether the run of a text was asked for in the run of the page that is under way.
    canvases
        What stands on the canvas of each text, by the key of its request.
    numbers
        Numbers what is asked of the canvas; from the clock on, as a page in the browser may
        outlive its session here.
    picked
        The cell of the canvas that was clicked since the page was drawn last: the key of the
        request, token and site.
    stored
        The uploaded trace: its file's id, its request, and the trace.
    session
        The uploaded session: its file's id, and its traces, none once it was opened; or why it was
        refused.
    points_seen
        The points of the frontier that were clicked last.
    candidate
        The policy that was chosen last.
    points
        Selected points of cluster maps, by the key of the map.
    forced
        What is to be forced on the page of questions, in order, by the key of the trace: a token,
        or None for all; a site, a layer, or None for all; and whether it is to run.
    generations
        How many texts were asked for.
    measurements
        How many measurements of cost were asked for.
    generated
        The one that ended last and was taken up: its conversation, and what all pages show.
    traced_before
        What all pages showed when the last one was asked for.
    chat
        The messages of the conversation so far.
    clear_message
        Whether the message that was typed has become a part of it.
    """

    runs: dict[str, StartedRun] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()
    sidebar: dict[str, Any] = field(default_factory=dict)
    chosen: Request | None = None
    to_fill_in: Request | None = None
    brought_back: tuple[Document, ...] = ()
    offered: dict[str, OfferedRun] = field(default_factory=dict)
    waits_shown: set[str] = field(default_factory=set)
    lost_address: bool = False
    opened: bool = False
    just_asked: bool = False
    tour: int | None = None
    tour_page: str | None = None
    canvases: dict[str, OnCanvas] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(time.time_ns() // 10**6))
    picked: tuple[str, int, int] | None = None
    stored: tuple[str, Request, Trace] | None = None
    session: tuple[str, list[SavedTrace] | str] | None = None
    points_seen: list[Any] = field(default_factory=list)
    candidate: str | None = None
    points: dict[str, set[int]] = field(default_factory=dict)
    forced: dict[str, list[tuple[int | None, str | int | None, bool]]] = field(default_factory=dict)
    generations: int = 0
    measurements: int = 0
    generated: object = None
    traced_before: StartedRun | None = None
    chat: tuple[Mapping[str, str], ...] = ()
    clear_message: bool = False

    def runs_under_way(self, name: str) -> bool:
        """Say whether this session waits for a run."""
        return name in self.runs and self.runs[name].under_way


def state() -> State:
    """Return the memory of this session."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = State()
    found: State = st.session_state[_KEY]
    return found


def on_canvas(request: Request) -> OnCanvas:
    """Return what stands on the canvas of the text of a request that is shown."""
    canvases, new = state().canvases, OnCanvas(numbers=state().numbers)
    found = canvases[request.key] = canvases.pop(request.key, new)
    for key in list(canvases)[:-CANVASES]:
        del canvases[key]
    return found


def widget(key: str) -> Any:
    """Return the value of a widget, or None if Streamlit does not hold it."""
    return st.session_state.get(key)


def set_widget(key: str, value: Any) -> None:
    """Set the value of a widget that has not been drawn yet in this run."""
    st.session_state[key] = value


def widgets() -> dict[str, Any]:
    """Return the values of all widgets that Streamlit holds, by their keys."""
    return {str(key): value for key, value in st.session_state.items() if key != _KEY}


def restore(values: Iterable[tuple[str, Any]]) -> None:
    """Set again what Streamlit has forgotten of widgets that were not drawn in the last run.

    What it has not forgotten stays: setting it would overwrite what is being typed.
    """
    for key, value in values:
        if key not in st.session_state:
            st.session_state[key] = value
