"""The runs that a visitor made last, which a click brings back."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.frame.opening import is_sample, show_request
from skipviz.app.jobs import REQUEST_CHARACTERS, Request
from skipviz.app.sessions import this_visitor
from skipviz.app.state import state

KEPT_RUNS = 12
"""Of each visitor, the latest."""
VISITORS = 500
"""Whose runs are kept; who came longest ago is forgotten first, as where texts are too long."""
LONGEST_LABEL = 40


@dataclass(frozen=True)
class RecentRun:
    """A run that a visitor made.

    Attributes
    ----------
    request
        What was run.
    at
        When.
    """

    request: Request
    at: datetime

    @property
    def label(self) -> str:
        """How it is offered: text, model, policy or budget, time."""
        return " · ".join([*told_apart(self.request), f"{self.at:%H:%M}"])


class RecentRuns:
    """The runs of all visitors; each is told of its own alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, deque[RecentRun]] = OrderedDict()

    def add(self, visitor: str, request: Request) -> None:
        """Note a run; one that is there already moves to the front."""
        with self._lock:
            runs = self._runs.setdefault(visitor, deque(maxlen=KEPT_RUNS))
            self._runs.move_to_end(visitor)
            for run in [run for run in runs if run.request.key == request.key]:
                runs.remove(run)
            runs.appendleft(RecentRun(request, datetime.now()))
            if len(self._runs) > VISITORS:
                self._runs.popitem(last=False)
            left = sum(run.request.held for runs in self._runs.values() for run in runs)
            while left > REQUEST_CHARACTERS and (len(self._runs) > 1 or len(runs) > 1):
                first = next(iter(self._runs))
                left -= self._runs[first].pop().request.held
                if not self._runs[first]:
                    del self._runs[first]

    def of(self, visitor: str) -> list[RecentRun]:
        """Return a visitor's runs, the latest first."""
        with self._lock:
            return list(self._runs.get(visitor, ()))


@st.cache_resource
def recent_runs() -> RecentRuns:
    """Return the runs that this server remembers."""
    return RecentRuns()


def told_apart(request: Request) -> list[str]:
    """Return what tells a request from others: its text, model, and policy or budget."""
    first, *others = request.documents
    text = first.text.strip() if first.source == "pasted text" else first.source
    name = text[:LONGEST_LABEL].replace("\n", " ") + "…" * (len(text) > LONGEST_LABEL)
    parts = [f"{name} and {len(others)} more" if others else name, request.model.rpartition("/")[2]]
    if request.policy is not None:
        parts.append(request.policy)
    if request.budget is not None:
        parts.append(f"{request.budget:.0%}")
    return parts


def offer_recent_runs(shown: Request | None) -> None:
    """List the visitor's runs in the side bar, but for the one that is shown."""
    runs = [
        run
        for run in recent_runs().of(this_visitor())
        if shown is None or run.request.key != shown.key
    ]
    if not runs:
        return
    with st.expander(f"Recent runs ({len(runs)})", key="recent runs"):
        for run in runs:
            st.button(
                plain(run.label),
                key=f"recent {run.request.address}",
                type="tertiary",
                on_click=bring_back,
                args=(run.request,),
            )


def bring_back(request: Request) -> None:
    """Show a run again, with its text, model and budget in the side bar.

    One that an address names may be another visitor's: from then on it is one of this visitor's.
    """
    show_request(request)
    if is_sample(request):
        return
    state().to_fill_in = request
    if all(run.request.key != request.key for run in recent_runs().of(this_visitor())):
        recent_runs().add(this_visitor(), request)
