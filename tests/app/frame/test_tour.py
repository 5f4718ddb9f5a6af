"""The page of a step of the tour is opened again until the browser shows it."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from tests.app.pages import PATIENCE


def tour() -> None:
    """The script of a page with the tour on it."""
    import streamlit as st

    from skipviz.app.frame.opening import open_at_start, sample
    from skipviz.app.frame.tour import offer_tour, page_is_shown, show_tour
    from skipviz.app.state import on_canvas

    st.session_state["opened"] = []
    open_at_start()
    offer_tour(to_the_new=True)
    show_tour(st.session_state["opened"].append)
    if st.checkbox("followed", key="followed"):
        on_canvas(sample()[0]).asked = None
    page_is_shown()


def test_a_page_is_opened_until_the_canvas_has_followed() -> None:
    page = AppTest.from_function(tour).run(timeout=PATIENCE)
    page.button(key="take the tour").click().run(timeout=PATIENCE)
    assert page.session_state["opened"] == ["paths"]
    page.run(timeout=PATIENCE)  # as the browser asks of the page before
    assert page.session_state["opened"] == ["paths"]
    page.checkbox(key="followed").check().run(timeout=PATIENCE)
    page.run(timeout=PATIENCE)  # whoever opens another page now stays there
    assert page.session_state["opened"] == []
    page.checkbox(key="followed").uncheck()
    page.button(key="tour next").click().run(timeout=PATIENCE)
    assert page.session_state["opened"] == ["paths"]
    page.button(key="leave").click().run(timeout=PATIENCE)
    assert page.session_state["opened"] == []
    assert page.session_state["skipviz"].tour_page is None
