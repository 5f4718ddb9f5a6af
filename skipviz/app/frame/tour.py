"""The tour: five steps on the sample, for who has not been here before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import PATHS
from skipviz.app.frame.opening import is_sample, sample, show_sample
from skipviz.app.frame.recent_runs import VISITORS
from skipviz.app.frame.tour_steps import TourStep, tour_steps
from skipviz.app.sessions import this_visitor
from skipviz.app.state import on_canvas, state


class ToursLeft:
    """Who has left the tour, and is not shown it again without asking."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visitors: OrderedDict[str, None] = OrderedDict()

    def add(self, visitor: str) -> None:
        """Note a visitor; of too many, who came longest ago is forgotten."""
        with self._lock:
            self._visitors[visitor] = None
            self._visitors.move_to_end(visitor)
            if len(self._visitors) > VISITORS:
                self._visitors.popitem(last=False)

    def has(self, visitor: str) -> bool:
        """Say whether a visitor has left it."""
        with self._lock:
            return visitor in self._visitors


@st.cache_resource
def tours_left() -> ToursLeft:
    """Return who has left the tour on this server."""
    return ToursLeft()


def show_tour(go_to: Callable[[str], None]) -> None:
    """Show the step at which the tour is, if one is taken.

    Parameters
    ----------
    go_to
        Opens the page of a name, if it is not open.
    """
    at = state().tour
    if at is None:
        return
    steps = _steps()
    if not is_sample(state().runs[PATHS].request):  # a text of one's own is what the tour is for
        _leave()
        return
    step = steps[at]
    if (page := state().tour_page) is not None:
        go_to(page)  # which begins another run, unless the page is open
        state().tour_page = None
    with st.container(border=True, key="tour"):
        st.markdown(f"**{at + 1} of {len(steps)}: {plain(step.title)}.** {plain(step.said)}")
        with st.container(horizontal=True):
            last = at + 1 == len(steps)
            if not last:
                st.button(
                    "Next", type="primary", key="tour next", shortcut="Alt+N", on_click=_take,
                    args=(at + 1,),
                )  # fmt: skip
            if at:
                st.button("Back", key="tour back", shortcut="Alt+B", on_click=_take, args=(at - 1,))
            st.button("End the tour" if last else "Leave the tour", key="leave", on_click=_leave)


def offer_tour(*, to_the_new: bool) -> None:
    """Offer the tour to those who have not left it, or to those who have.

    Parameters
    ----------
    to_the_new
        Whether those are meant who have not left it.
    """
    if state().tour is not None or tours_left().has(this_visitor()) == to_the_new:
        return
    said = "Take the tour: five steps" if to_the_new else "Take the tour again"
    kind: Literal["secondary", "tertiary"] = "secondary" if to_the_new else "tertiary"
    st.button(said, key="take the tour", type=kind, on_click=_begin)


def _begin() -> None:
    if not is_sample(state().runs[PATHS].request):
        show_sample()
    _take(0)


def _take(at: int) -> None:
    """Go to a step: select its token, and have its page opened.

    As a callback: a run of the page that is ended early would lose the click.
    """
    step = _steps()[at]
    state().tour = at
    state().tour_page = step.page
    on_canvas(sample()[0]).ask(step.token)


def _leave() -> None:
    state().tour = None
    tours_left().add(this_visitor())


@st.cache_resource
def _steps() -> tuple[TourStep, ...]:
    return tour_steps(sample()[1])
