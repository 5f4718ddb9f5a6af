from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.views.what_if_page import _toggle
from skipviz.readings.counterfactual import what_if_reading
from tests import tiny
from tests.folders import write_gated

PATIENCE = 60
TEXT = tiny.TEXT[:40]


def what_if_of(folder: str, text: str) -> None:
    """The script of the page after a text was traced."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state
    from skipviz.app.views.what_if_page import page

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    page()


def until(page: AppTest, there: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not there() and time.monotonic() < end:
        page.run(timeout=PATIENCE)
        time.sleep(0.1)
    assert not page.exception
    assert there()


def said(page: AppTest) -> str:
    return " ".join(each.value for each in (*page.markdown, *page.caption))


@pytest.mark.slow
def test_a_token_is_forced_a_threshold_moved_a_budget_met_and_all_taken_back(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    model = skipviz.load(folder, budget=0.8)
    trace = skipviz.trace(model, TEXT)
    page = AppTest.from_function(what_if_of, args=(str(folder), TEXT)).run(timeout=PATIENCE)
    assert not page.exception
    assert "The loss would" not in said(page)
    page.button_group(key="what if kind").set_value("A whole token").run(timeout=PATIENCE)
    page.number_input(key="what if token").set_value(5)
    page.button(key="what if force").click().run(timeout=PATIENCE)
    forced = what_if_reading(skipviz.what_if(model, trace, sites={(5, None): False}))
    until(page, lambda: forced in said(page))
    assert "skips all layers with gates" in said(page)
    page.button(key="what if undo").click().run(timeout=PATIENCE)
    assert "The loss would" not in said(page)
    page.button_group(key="what if gates").set_value("Another threshold").run(timeout=PATIENCE)
    page.number_input(key="what if threshold all sites").set_value(0.3).run(timeout=PATIENCE)
    moved = what_if_reading(skipviz.what_if(model, trace, threshold=0.3))
    until(page, lambda: moved in said(page))
    page.button_group(key="what if gates").set_value("A budget").run(timeout=PATIENCE)
    budget = page.select_slider(key="what if budget").value
    met = what_if_reading(skipviz.what_if(model, trace, budget=float(budget)))
    until(page, lambda: met in said(page))
    page.button(key="try text frontier").click().run(timeout=PATIENCE)
    charts = len(page.get("plotly_chart"))
    until(page, lambda: len(page.get("plotly_chart")) > charts or "under way" in said(page))
    page.button_group(key="what if gates").set_value("As traced").run(timeout=PATIENCE)
    assert "The loss would" not in said(page)


def test_a_click_forces_a_cell_and_another_takes_it_back(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    token, site = (int(each) for each in np.argwhere(trace.matrix("exec_count") > 0)[0])
    forced: list[tuple[int | None, str | int | None, bool]] = [(7, 3, True)]
    _toggle(forced, trace, token, site)
    assert forced == [(7, 3, True), (token, trace.sites["label"][site], False)]
    _toggle(forced, trace, token, site)
    assert forced == [(7, 3, True)]
