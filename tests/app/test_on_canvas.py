from __future__ import annotations

from copy import copy
from functools import partial

import numpy as np
import pytest
import streamlit
from streamlit.testing.v1 import AppTest

from skipviz.app.components.canvas import Selection
from skipviz.app.on_canvas import Changed, OnCanvas
from skipviz.plots.lenses.lens import Lens
from tests.app.pages import PATIENCE


class _DrawnAnewError(Exception):
    pass


@pytest.fixture(autouse=True)
def _reruns(monkeypatch: pytest.MonkeyPatch) -> None:
    def rerun() -> None:
        raise _DrawnAnewError

    monkeypatch.setattr(streamlit, "rerun", rerun)


def lens(name: str) -> Lens:
    return Lens(
        name=name, unit="nats", values=np.zeros(3, "float32"), scale="sequential", ends=(0.0, 1.0)
    )


def test_a_lens_is_made_once_for_what_it_is_made_from() -> None:
    on = OnCanvas()
    with pytest.raises(_DrawnAnewError):
        on.paint("first", lambda: [lens("utility"), lens("regret")])
    on.paint("first", lambda: pytest.fail("it is there"))
    on.paint("nothing in common", list)
    assert on.fresh == ("utility", 1)
    with pytest.raises(_DrawnAnewError):
        on.paint("second", lambda: [lens("utility")])
    assert set(on.lenses) == {"utility", "regret"}
    assert on.fresh == ("utility", 1), "it was there: nobody is made to look through it again"
    on.add("third", lens("loss"))
    assert list(on.lenses) == ["utility", "regret", "loss"]
    assert on.fresh == ("utility", 1)
    with pytest.raises(_DrawnAnewError):
        on.paint("fourth", lambda: [lens("kind of token")], offered=True)
    assert on.fresh == ("utility", 1), "nobody asked for it"


def test_a_click_is_followed_once() -> None:
    on = OnCanvas()
    with pytest.raises(_DrawnAnewError):
        on.select("row", 2, 1)
    on.select("row", 2, 1)
    assert on.asked is not None
    assert on.asked == (1, 2, 1)
    on.forget("row")
    with pytest.raises(_DrawnAnewError):
        on.select("row", 2, 1)


def test_what_stays_chosen_in_two_places_is_not_followed_in_turns() -> None:
    on = OnCanvas()
    for place, token in (("one", 2), ("another", 0)):
        with pytest.raises(_DrawnAnewError):
            on.select(place, token, 1)
    on.select("one", 2, 1)
    on.select("another", 0, 1)
    assert on.asked == (2, 0, 1)


def test_what_was_followed_is_not_asked_for_again() -> None:
    on = OnCanvas()
    with pytest.raises(_DrawnAnewError):
        on.select("row", 2)
    on.take(Selection(token=1, site=1))
    assert on.asked is not None, "told before the browser heard of it"
    on.take(Selection(token=5, followed=1))
    assert on.asked is None, "what was selected since has the last word"
    on.select("row", 2)
    assert on.asked is None


def test_what_is_asked_again_is_another_request() -> None:
    on = OnCanvas()
    on.ask(2)
    on.take(Selection(token=2, followed=1))
    on.ask(2)
    on.take(Selection(token=5, followed=1))
    assert on.asked == (2, 2, None)


def forgotten_and_shown_again() -> None:
    """The script of a session that shows so many texts that the first is forgotten."""
    import streamlit as st

    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.on_canvas import CANVASES
    from skipviz.app.state import on_canvas

    texts = [
        Request(model="synthetic", documents=(skipviz.Document("mine", f"text {number}"),))
        for number in range(CANVASES + 1)
    ]
    before = on_canvas(texts[0])
    before.ask(2)
    for text in texts[1:]:
        on_canvas(text)
    again = on_canvas(texts[0])
    again.ask(2)
    st.session_state["asked"] = before.asked, again.asked


def test_a_text_that_was_forgotten_asks_with_new_numbers() -> None:
    page = AppTest.from_function(forgotten_and_shown_again).run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    before, again = page.session_state["asked"]
    assert again[0] > before[0] > 10**12, "the browser remembers those of sessions before"


def test_marks_come_and_go_with_their_lens() -> None:
    on = OnCanvas()
    for question in ("one", "another"):
        changed = Changed(marks=np.full((3, 2), len(question), np.uint8))
        with pytest.raises(_DrawnAnewError):
            on.paint(question, lambda: [lens("loss")], change=partial(copy, changed))
        assert on.changed is not None
        assert on.changed[0] == question
        assert (on.changed[1].marks == changed.marks).all()
    with pytest.raises(_DrawnAnewError):
        on.paint("audit", lambda: [lens("utility")])
    with pytest.raises(_DrawnAnewError):
        on.unpaint("utility")
    assert on.changed is not None
    with pytest.raises(_DrawnAnewError):
        on.unpaint("loss")
    assert on.changed is None


def test_a_lens_that_is_taken_away_is_gone_at_once() -> None:
    on = OnCanvas()
    on.unpaint("loss")
    with pytest.raises(_DrawnAnewError):
        on.paint("first", lambda: [lens("loss")])
    with pytest.raises(_DrawnAnewError):
        on.unpaint("loss")
    assert not on.lenses


def test_a_range_that_is_cleared_is_gone_at_once_and_the_browser_is_told() -> None:
    on = OnCanvas(selection=Selection(token=2, range=(1, 4)))
    on.clear_range()
    assert on.selection == Selection(token=2)
    assert on.range_clears == 1
    on.take(Selection(token=2, range=(1, 4)))
    assert on.selection.range is None, "the browser had not heard of it yet"
    on.take(Selection(token=2))
    on.take(Selection(token=2, range=(1, 4)))
    assert on.selection.range == (1, 4), "it was chosen again"
