"""The frame around every page, without a browser, on tiny random models."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.components.run_button import jobs
from skipviz.app.frame.changed import what_changed
from skipviz.app.frame.opening import sample
from skipviz.app.frame.recent_runs import KEPT_RUNS, RecentRuns
from skipviz.app.jobs import ForgottenError, Request
from skipviz.app.sessions import this_session, this_visitor
from skipviz.app.state import StartedRun
from skipviz.app.worker import Job
from tests import tiny
from tests.app.pages import PATIENCE, framed, until
from tests.folders import write_gated

ASKED = Request(
    model="m", documents=(skipviz.Document("pasted text", "One text."),), budget=0.8, policy="a"
)


def opened(**address: str) -> AppTest:
    page = AppTest.from_function(framed, args=("paths_page",))
    for name, value in address.items():
        page.query_params[name] = value
    return page.run(timeout=PATIENCE)


def said(page: AppTest) -> str:
    return " ".join(each.value for each in [*page.markdown, *page.caption, *page.warning])


def trace_in(page: AppTest, folder: Path, text: str) -> None:
    """Trace a text with the model in a folder."""
    page.selectbox(key="model").set_value("A folder on this machine").run(timeout=PATIENCE)
    page.text_input(key="folder").set_value(str(folder)).run(timeout=PATIENCE)
    page.text_area(key="pasted").set_value(text)
    page.button(key="run").click().run(timeout=PATIENCE)
    runs = page.session_state["skipviz"].runs
    until(page, lambda: not runs["paths"].under_way)
    page.run(timeout=PATIENCE)


def test_a_page_opens_with_the_sample_and_says_what_it_shows() -> None:
    page = opened()
    trace = sample()[1]
    assert not page.exception
    assert "A sample, traced already." in said(page)
    fewest = trace.tokens.filter(trace.tokens["nll"].is_not_null())["layers_used"].min()
    assert f"used {fewest:g} of {trace.run['layers'].item()} layers" in said(page)
    token = page.session_state["skipviz"].canvases[sample()[0].key].asked[1]
    assert trace.tokens["layers_used"][token] == fewest


@pytest.mark.model
def test_the_sample_is_what_its_model_does_today() -> None:
    request, trace = sample()
    model = skipviz.load(request.model)
    assert request.weights == model.weights_sha256
    again = skipviz.trace(model, list(request.documents))
    assert again.run["setup_sha256"].item() == request.setup
    assert (again.matrix("exec_count") == trace.matrix("exec_count")).all()


def test_the_sample_is_said_to_be_there_while_a_text_runs() -> None:
    page = opened()
    state = page.session_state["skipviz"]
    job: Job[skipviz.Trace] = Job()
    before = state.runs["paths"]
    state.runs["paths"] = StartedRun(job, "mine", ASKED, before=before)
    page.run(timeout=PATIENCE)
    assert "Your text is being traced. Below is the sample until then." in said(page)
    assert "A sample, traced already." not in said(page)
    state.runs["paths"] = replace(state.runs["paths"], stopped=True)
    page.run(timeout=PATIENCE)
    assert "until then" not in said(page)
    assert "A sample, traced already." in said(page)


@pytest.mark.slow
def test_what_was_run_is_brought_back_with_its_input(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = opened()
    trace_in(page, folder, tiny.TEXT)
    assert "A sample" not in said(page)
    state = page.session_state["skipviz"]
    first = state.runs["paths"].request
    page.text_area(key="pasted").set_value(tiny.TEXT[:20]).run(timeout=PATIENCE)
    assert "The side bar has another text than what is shown." in said(page)
    page.button(key="run").click().run(timeout=PATIENCE)
    until(page, lambda: not state.runs["paths"].under_way)
    page.run(timeout=PATIENCE)
    assert "than what is shown" not in said(page)
    assert "the fewest of all tokens except the first and the last; the mean is" in said(page)
    page.button(key=f"recent {first.address}").click().run(timeout=PATIENCE)
    assert state.runs["paths"].request.key == first.key
    assert page.text_area(key="pasted").value == tiny.TEXT
    assert page.text_input(key="folder").value == str(folder)
    assert not page.exception
    # Another session opens what the address names, though it is not this visitor's run.
    other = opened(trace=first.address)
    assert other.session_state["skipviz"].runs["paths"].request.key == first.key
    assert not any(button.key == f"recent {first.address}" for button in other.button)


@pytest.mark.slow
def test_a_trace_opened_from_its_address_can_be_traced_anew(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = opened()
    trace_in(page, folder, tiny.TEXT)
    first = page.session_state["skipviz"].runs["paths"].request
    other = opened(trace=first.address)
    assert other.text_area(key="pasted").value == tiny.TEXT
    assert other.text_input(key="folder").value == str(folder)
    assert "than what is shown" not in said(other)
    (budget,) = (each for each in other.button_group if str(each.key).startswith("budget of "))
    budget.set_value(0.6).run(timeout=PATIENCE)
    assert "The side bar has another budget than what is shown." in said(other)
    other.button(key="run").click().run(timeout=PATIENCE)
    runs = other.session_state["skipviz"].runs
    until(other, lambda: not runs["paths"].under_way)
    other.run(timeout=PATIENCE)
    assert not other.error
    assert runs["paths"].request.budget == 0.6
    assert runs["paths"].request.documents[0].text == tiny.TEXT
    # What it was opened with can be gone back to, and compared with.
    assert any(button.key == f"recent {first.address}" for button in other.button)


@pytest.mark.slow
def test_texts_that_cannot_be_pasted_can_be_traced_anew(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    documents = tuple(skipviz.Document(name, tiny.TEXT) for name in ("one.txt", "two.txt"))
    request = Request(model=str(folder), documents=documents, budget=0.8)
    jobs().submit(request).future.result()
    page = opened(trace=request.address)
    assert "The 2 texts of the run that was brought back, one.txt first." in said(page)
    (budget,) = (each for each in page.button_group if str(each.key).startswith("budget of "))
    budget.set_value(0.6).run(timeout=PATIENCE)
    page.button(key="run").click().run(timeout=PATIENCE)
    asked = page.session_state["skipviz"].runs["paths"].request
    assert (asked.budget, asked.documents) == (0.6, documents)


def test_an_address_that_is_not_known_is_said_and_never_shows_another_text() -> None:
    page = opened(trace="0123456789abcdef", token="5")
    assert "names a trace that is not known here" in said(page)
    assert "A sample" in said(page)


def test_the_address_of_the_sample_is_known_to_a_server_started_anew() -> None:
    page = opened(trace=sample()[0].address)
    assert "A sample" in said(page)
    assert "names a trace that is not known here" not in said(page)


def test_a_sample_that_was_forgotten_is_there_again_without_a_model() -> None:
    page = opened()
    run = page.session_state["skipviz"].runs["paths"]
    run.job.release(ForgottenError())
    runs = jobs().runs
    page.run(timeout=PATIENCE)
    assert "A sample, traced already." in said(page)
    assert page.session_state["skipviz"].runs["paths"].finished is not None
    assert jobs().runs == runs


def test_a_click_on_a_page_that_takes_none_is_gone_on_the_next() -> None:
    page = opened()
    page.session_state["skipviz"].picked = (sample()[0].key, 3, 1)
    page.run(timeout=PATIENCE)
    assert page.session_state["skipviz"].picked is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"documents": ()}, None),
        ({"budget": None}, None),
        ({"model": "n"}, "another model"),
        ({"budget": 0.9, "policy": "b"}, "another policy and another budget"),
        ({"documents": (skipviz.Document("pasted text", "Another."),)}, "another text"),
    ],
)
def test_what_changed(change: dict[str, object], words: str | None) -> None:
    found = what_changed(ASKED, replace(ASKED, **change))  # type: ignore[arg-type]
    assert (found is None) == (words is None)
    assert words is None or f"The side bar has {words} than" in str(found)


def test_a_visitor_sees_its_own_runs_alone_the_latest_first() -> None:
    runs = RecentRuns()
    many = [replace(ASKED, model=f"model {number}") for number in range(KEPT_RUNS + 2)]
    for request in [*many, many[-2]]:
        runs.add("one", request)
    assert [run.request.model for run in runs.of("one")][:2] == ["model 12", "model 13"]
    assert len(runs.of("one")) == KEPT_RUNS
    assert runs.of("another") == []


def test_long_texts_of_others_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skipviz.app.frame.recent_runs.REQUEST_CHARACTERS", 20)
    runs = RecentRuns()
    for number in range(3):
        runs.add("one", replace(ASKED, model=f"model {number}"))  # of nine characters each
    assert [run.request.model for run in runs.of("one")] == ["model 2", "model 1"]
    runs.add("another", replace(ASKED, documents=(skipviz.Document("long", "a" * 50),)))
    assert runs.of("one") == []
    assert len(runs.of("another")) == 1


def test_a_visitor_is_the_same_under_another_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for cookie in (
        "2|2cfabf04|0b0fd6719ddadafc87b4063bf0339ec8|1795994076",
        "2|1c6ffec3|3b9a97b6ad4f9b3bb72147fcc0a6df0f|1795994076",
    ):
        context = type("Context", (), {"cookies": {"_streamlit_xsrf": cookie}})
        monkeypatch.setattr(streamlit, "context", context)
        found.add(this_visitor())
    assert len(found) == 1
    assert len(found.pop()) == 32


@pytest.mark.parametrize("cookie", ["2|zz|0b0f|1", "2|||1", "2|2c|0b0|1", "1|ab", ""])
def test_a_cookie_that_is_none_of_ours_names_no_visitor(
    cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = type("Context", (), {"cookies": {"_streamlit_xsrf": cookie}})
    monkeypatch.setattr(streamlit, "context", context)
    assert this_visitor() == this_session()


def test_the_frame_is_there_before_what_runs_models() -> None:
    script = (
        "import sys, skipviz.app.frame.frame, skipviz.app.views.paths_page\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr
