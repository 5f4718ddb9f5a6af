from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.app.views.what_if_page import DECIDED_BY, _Controls, _toggle
from skipviz.experiments.counterfactuals.text_frontier import frontier_budgets
from skipviz.plots.lenses.lens import Lens
from skipviz.readings.counterfactual import what_if_reading
from tests import tiny
from tests.app.pages import PATIENCE, page_of_text, until
from tests.folders import write_gated
from tests.synthetic import make_trace

TEXT = tiny.TEXT[:40]


def controls_of(known: bool) -> None:
    """The script of the controls for a trace whose FLOPs and scores are all known, or not."""
    from dataclasses import replace

    import numpy as np
    import polars as pl
    import streamlit as st

    import skipviz
    from skipviz.app.jobs import Request
    from skipviz.app.views.what_if_page import _read_controls
    from tests.synthetic import make_trace

    trace = make_trace(tokens=20)
    if not st.checkbox("known", value=known, key="known"):
        score = trace.matrix("score").copy()
        score[10:, 3] = np.nan
        score[:, 5] = np.nan
        run = trace.run.with_columns(pl.lit(None, pl.Int64).alias("mlp_flops"))
        trace = replace(trace, run=run, matrices={**trace.matrices, "score": score})
    request = Request(model="synthetic", documents=(skipviz.Document("mine", "text"),))
    _read_controls(request, trace)


def map_of(asked: str) -> None:
    """The script of the map of an answer."""
    import numpy as np

    import skipviz
    from skipviz.analysis.counterfactual import WhatIf
    from skipviz.app.jobs import Request
    from skipviz.app.state import StartedRun
    from skipviz.app.views.what_if_page import _mark
    from skipviz.app.worker import Job
    from tests.synthetic import make_trace

    before, after = make_trace(), make_trace(seed=1)
    answer = WhatIf(
        question="one", before=before, trace=after, kl=np.zeros(len(before)), computed_anew="",
        asked=np.zeros(before.matrix("exec_count").shape, dtype=bool),
    )  # fmt: skip
    job: Job[WhatIf] = Job()
    job.future.set_result(answer)
    request = Request(model="synthetic", documents=(skipviz.Document("mine", "text"),))
    _mark(request, StartedRun(job, asked, request))


def said(page: AppTest) -> str:
    return " ".join(each.value for each in (*page.markdown, *page.caption))


@pytest.mark.slow
def test_a_token_is_forced_a_threshold_moved_a_budget_met_and_all_taken_back(
    tmp_path: Path, dense_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def what_if_later(*given: Any, **named: Any) -> skipviz.WhatIf:
        assert go_on.wait(PATIENCE)
        return skipviz.what_if(*given, **named)

    monkeypatch.setattr("skipviz.app.views.what_if_page.what_if", what_if_later)
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    model = skipviz.load(folder, budget=0.8)
    trace = skipviz.trace(model, TEXT)
    page = AppTest.from_function(page_of_text, args=("what_if_page", str(folder), TEXT))
    page.run(timeout=PATIENCE)
    assert not page.exception
    assert "The loss would" not in said(page)
    page.button_group(key="what if kind").set_value("A whole token").run(timeout=PATIENCE)
    page.number_input(key="what if token").set_value(5)
    page.button(key="what if force").click().run(timeout=PATIENCE)
    assert "no answer yet. The map still shows the text as it was traced." in said(page)
    go_on.set()
    forced = what_if_reading(skipviz.what_if(model, trace, sites={(5, None): False}))
    until(page, lambda: forced in said(page))
    assert "skips all layers with gates" in said(page)
    page.button(key="what if undo").click().run(timeout=PATIENCE)
    assert "The loss would" not in said(page)
    page.button_group(key="what if gates").set_value("Another threshold").run(timeout=PATIENCE)
    go_on.clear()
    page.number_input(key="what if threshold all sites").set_value(0.3).run(timeout=PATIENCE)
    assert "The map still marks what the question before changed (" in said(page)
    go_on.set()
    moved = what_if_reading(skipviz.what_if(model, trace, threshold=0.3))
    until(page, lambda: moved in said(page))
    assert "no answer yet" not in said(page)
    page.button_group(key="what if gates").set_value("A budget").run(timeout=PATIENCE)
    budget = page.select_slider(key="what if budget").value
    came_to = realised_budget(trace)  # the first question is what skipping a little more costs
    assert budget == max(each for each in frontier_budgets(trace) if each < came_to - 0.01)
    met = what_if_reading(skipviz.what_if(model, trace, budget=float(budget)))
    until(page, lambda: met in said(page))
    page.button(key="try text frontier").click().run(timeout=PATIENCE)
    charts = len(page.get("plotly_chart"))
    until(page, lambda: len(page.get("plotly_chart")) > charts or "under way" in said(page))
    page.button_group(key="what if gates").set_value("As traced").run(timeout=PATIENCE)
    assert "The loss would" not in said(page)


def test_a_budget_is_offered_only_where_flops_are_known() -> None:
    page = AppTest.from_function(controls_of, args=(True,)).run(timeout=PATIENCE)
    assert page.button_group(key="what if gates").options == DECIDED_BY
    page.button_group(key="what if gates").set_value("A budget").run(timeout=PATIENCE)
    assert page.select_slider(key="what if budget").options
    page.checkbox(key="known").uncheck()
    page.run(timeout=PATIENCE)
    assert not page.exception
    assert page.button_group(key="what if gates").options == DECIDED_BY[:2]


def test_scores_that_are_not_known_are_left_out_of_what_is_said_of_them() -> None:
    labels = make_trace().sites["label"]
    page = AppTest.from_function(controls_of, args=(False,)).run(timeout=PATIENCE)
    page.button_group(key="what if gates").set_value("Another threshold").run(timeout=PATIENCE)
    for place in ("all sites", f"only {labels[3]}"):
        page.selectbox(key="what if place").set_value(place).run(timeout=PATIENCE)
        chosen = page.number_input(key=f"what if threshold {place}")
        assert "Scores there lie between" in chosen.help
        assert "nan" not in chosen.help
        assert chosen.step > 0
    page.selectbox(key="what if place").set_value(f"only {labels[5]}").run(timeout=PATIENCE)
    assert not page.exception
    unknown = page.number_input(key=f"what if threshold only {labels[5]}")
    assert "There are no scores there" in unknown.help


def test_what_is_forced_last_counts_last() -> None:
    forced: list[tuple[int | None, str | int | None, bool]]
    forced = [(3, None, True), (3, 2, False), (3, None, True)]
    asked = _Controls(None, None, forced).arguments["sites"]
    assert list(asked.items()) == [((3, 2), False), ((3, None), True)]


def test_the_map_marks_what_the_last_question_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Lens(
        name="losses", unit="", values=np.zeros(3, "float32"), scale="sequential", ends=(0.0, 1.0)
    )
    monkeypatch.setattr("skipviz.app.views.what_if_page.what_if_lens", lambda _: losses)
    page = AppTest.from_function(map_of, args=("one",)).run(timeout=PATIENCE)
    assert not page.exception
    on = page.session_state["skipviz"].canvases.popitem()[1]
    assert on.changed[0] == "'one'"
    marks = on.changed[1].marks
    before, after = (make_trace(seed=seed).matrix("exec_count") > 0 for seed in (0, 1))
    assert ((marks == 2) == (before != after)).all()
    assert (marks != 1).all()
    assert list(on.lenses) == ["losses"]


def test_a_click_forces_a_cell_and_another_takes_it_back(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, TEXT)
    token, site = (int(each) for each in np.argwhere(trace.matrix("exec_count") > 0)[0])
    forced: list[tuple[int | None, str | int | None, bool]] = [(7, 3, True)]
    _toggle(forced, trace, token, site)
    assert forced == [(7, 3, True), (token, trace.sites["label"][site], False)]
    _toggle(forced, trace, token, site)
    assert forced == [(7, 3, True)]
