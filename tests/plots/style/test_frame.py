from __future__ import annotations

import plotly.graph_objects as go
import pytest

from skipviz.plots.style.frame import AXIS_CHARACTERS, TITLE_CHARACTERS, dress


@pytest.mark.parametrize(("title", "lines"), [("short", 1), ("long words " * 6, 2)])
def test_titles_have_lines_that_fit_and_the_room_for_them(title: str, lines: int) -> None:
    figure = go.Figure(layout={"xaxis": {"title": title}, "yaxis": {"title": "share of all words"}})
    dress(figure, "whose", title=title, height=300)
    shown = figure.layout.title.text.split("<br>")
    assert len(shown) == lines
    assert max(map(len, shown)) <= TITLE_CHARACTERS
    along = figure.layout.xaxis.title.text.split("<br>")
    assert max(map(len, along)) <= AXIS_CHARACTERS
    assert figure.layout.yaxis.title.text == "share of all<br>words"  # of what is 109 pixels high
    more = 20 * (lines - 1)
    assert (figure.layout.margin.t, figure.layout.margin.b) == (86 + more, 105 + more)
    assert figure.layout.height == 300 + 2 * more


def test_lines_that_a_title_has_are_kept() -> None:
    title = f"<b>{'a' * 50}</b> and more"
    assert dress(go.Figure(), "whose", title=title, height=300).layout.title.text == title
