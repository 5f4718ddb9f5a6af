"""What flipping one decision would do, asked on the canvas of any page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.cell_answers import changed_by, no_flips
from skipviz.plots.lenses.lens import UTILITY_LENS
from skipviz.readings.counterfactual import flip_reading
from tests import tiny
from tests.app.pages import PATIENCE, until
from tests.folders import write_gated
from tests.synthetic import make_trace

TEXT = tiny.TEXT[:40]


def flipped(folder: str, text: str, cells: list[tuple[int, int]], audited: bool) -> None:
    """The script of a canvas on which a flip was asked, beside a page that audits the text."""
    import streamlit as st

    import skipviz
    from skipviz.app.cell_answers import ask_flip, flip_payload
    from skipviz.app.components.run_button import PATHS, follow, jobs, traced_now
    from skipviz.app.frame.text_canvas import text_canvas
    from skipviz.app.jobs import Request
    from skipviz.app.one_text import audited as audit
    from skipviz.app.state import state

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    request, trace = traced_now()
    for cell in cells:
        st.button(str(cell), on_click=ask_flip, args=(request, trace, *cell))
    text_canvas(request, trace, address=request.address)
    if audited:
        audit(request, trace, "held")
    st.session_state["sent"] = flip_payload(request)


@pytest.mark.slow
def test_a_flip_is_answered_wherever_it_is_asked(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    cells = [(5, 2)]
    page = AppTest.from_function(flipped, args=(str(folder), TEXT, cells, True))
    page.run(timeout=PATIENCE)
    assert page.session_state["sent"] is None
    page.button[0].click().run(timeout=PATIENCE)
    until(page, lambda: page.session_state["sent"]["question"].get("words"))
    sent = page.session_state["sent"]
    model = skipviz.load(folder, budget=0.8)
    trace = skipviz.trace(model, TEXT)
    ran = bool(trace.matrix("exec_count")[5, 2])
    answer = skipviz.what_if(model, trace, sites={(5, trace.sites["label"][2]): not ran})
    found = changed_by(answer)
    assert sent["question"]["cell"] == found.cell == (5, 2)
    assert tuple(sent["question"]["words"]) == found.words
    assert sent["question"]["cone"] == list(found.cone)
    assert sent["parts"]["at"][2] == answer.changed.height
    assert (found.marks > 0).sum() == answer.changed.height
    assert found.marks[5, 2] == 1

    page.button(key="try audit").click()
    (on,) = page.session_state["skipviz"].canvases.values()
    until(page, lambda: UTILITY_LENS in on.lenses)
    cells_found = skipviz.audit(model, trace)
    values = on.lenses[UTILITY_LENS][1].values
    assert np.isfinite(values).sum() == cells_found.height
    assert values[5, 2] == pytest.approx(cells_found.filter(token=5, site=2)["utility"].item())
    assert on.fresh == ("", 0), "nobody is made to look through it"


@pytest.mark.slow
def test_a_flip_that_cannot_be_answered_says_why(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(flipped, args=(str(folder), TEXT, [(5, 2)], False))
    page.run(timeout=PATIENCE)
    (folder / "skipviz.json").write_text("{}")
    page.button[0].click().run(timeout=PATIENCE)
    until(page, lambda: page.session_state["sent"]["question"].get("problem"))
    assert "waits" not in page.session_state["sent"]["question"]
    assert page.session_state["sent"]["question"]["words"] == []


def test_what_several_decisions_change_has_no_cell() -> None:
    before, after = make_trace(), make_trace(seed=1)
    asked = np.zeros(before.matrix("exec_count").shape, dtype=bool)
    asked[3, 1] = True
    answer = skipviz.WhatIf(
        question="", before=before, trace=after, kl=np.zeros(len(before)), computed_anew="",
        asked=asked,
    )  # fmt: skip
    one = changed_by(answer)
    assert one.cell == (3, 1)
    steps = np.array(one.cone)
    inside = int((steps == 1).sum() + (steps == 2).sum() * (len(before) - 3))
    assert one.words == flip_reading(answer, 3, 1, can_depend=inside)
    asked[4, 1] = True
    several = changed_by(answer)
    assert (several.cell, several.cone, several.words) == (None, (), ())


def test_what_cannot_be_flipped_says_so_before() -> None:
    assert no_flips(make_trace()) == ""
    assert "no gates" in no_flips(make_trace(gated=()))
