"""What a page shows while a run waits, is under way, is stopped, and after."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from skipviz.app.components import run_button
from skipviz.app.components.run_button import how_far
from skipviz.app.jobs import Jobs, Request
from skipviz.app.worker import Job
from skipviz.errors import InputError, Stopped
from skipviz.text.documents import Document
from tests.waiting import wait_for

REQUEST = Request(model="tiny", documents=(Document(source="a", text="b"),))


class Runs:
    """Analyses that end when they are told to."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.go = threading.Event()
        self.fails = False

    def start(self, settings: str) -> Job[str]:
        def run(progress: Callable[[float], None]) -> str:
            while not self.go.wait(0.01):
                progress(0.0)
            if self.fails:
                raise InputError("The settings are no good.")
            return f"the result of {settings}"

        return self.jobs.analysis(REQUEST, settings, run)


RUNS: list[Runs] = []


def script() -> None:
    import streamlit as st

    from skipviz.app.components.run_button import tried
    from tests.app.components.test_stopping import REQUEST, RUNS

    settings = st.text_input("Settings", "one")
    found = tried(
        "run", "Run it", REQUEST, lambda: RUNS[0].start(str(settings)), settings=str(settings)
    )
    if found is not None:
        st.text(found)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    made = Jobs(lambda session: True)
    monkeypatch.setattr(run_button, "jobs", lambda: made)
    RUNS[:] = [Runs(made)]
    yield RUNS[0]
    made.close()


@pytest.fixture
def page(runs: Runs) -> AppTest:
    return AppTest.from_function(script).run()


def press(page: AppTest, label: str) -> None:
    (button,) = (each for each in page.button if each.label == label)
    button.click().run()


def shown(page: AppTest) -> list[str]:
    assert not page.exception
    return [each.value for each in page.text]


def newest(runs: Runs) -> Job[Any]:
    return list(runs.jobs._jobs.values())[-1]


def first_result(page: AppTest, runs: Runs) -> None:
    press(page, "Run it")
    runs.go.set()
    newest(runs).future.result(9)
    page.run()
    assert shown(page) == ["the result of one"]
    runs.go.clear()


def test_stopping_a_new_run_leaves_the_result_of_the_one_before(page: AppTest, runs: Runs) -> None:
    first_result(page, runs)
    page.text_input[0].set_value("two").run()
    assert shown(page) == []
    press(page, "Run it")
    under_way = newest(runs)
    wait_for(under_way.future.running)
    press(page, "Stop")
    assert [each.value for each in page.info] == ["Stopped. Press the button to run it again."]
    assert isinstance(under_way.future.exception(2), Stopped)
    page.text_input[0].set_value("one").run()
    assert shown(page) == ["the result of one"]
    assert not page.info


def test_a_run_that_fails_leaves_the_result_of_the_one_before(page: AppTest, runs: Runs) -> None:
    first_result(page, runs)
    page.text_input[0].set_value("two").run()
    runs.fails = True
    runs.go.set()
    press(page, "Run it")
    wait_for(lambda: page.run().error)
    assert page.error[0].value == "The settings are no good."
    page.text_input[0].set_value("one").run()
    assert shown(page) == ["the result of one"]


def test_a_run_stopped_by_one_goes_on_for_another(page: AppTest, runs: Runs) -> None:
    press(page, "Run it")
    job = newest(runs)
    job.follow("another session", "run")
    press(page, "Stop")
    assert [each.value for each in page.info] == ["Stopped. Press the button to run it again."]
    time.sleep(0.05)
    assert not job.future.done()
    press(page, "Run it")  # it is joined again
    assert newest(runs) is job
    runs.go.set()
    job.future.result(9)
    page.run()
    assert shown(page) == ["the result of one"]


def test_a_result_that_is_no_longer_kept_is_offered_again(page: AppTest, runs: Runs) -> None:
    first_result(page, runs)
    runs.jobs.made("large", lambda: "x" * 2**20)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("skipviz.app.jobs.RESULT_BYTES", 1)
        runs.jobs.made("larger", lambda: "y")
    page.run()
    assert shown(page) == []
    assert "no longer kept" in page.info[0].value
    runs.go.set()
    press(page, "Run it")
    wait_for(lambda: shown(page.run()))
    assert shown(page) == ["the result of one"]


def test_a_run_in_words() -> None:
    job: Job[None] = Job()
    assert how_far(job, before=1) == "Waiting: 1 run before yours"
    assert how_far(job, before=2) == "Waiting: 2 runs before yours"
    job.begin("Loading m")
    assert how_far(job, before=0) == "Loading m"
    job.share = 0.25
    assert how_far(job, before=0) == "Loading m: 25.0%"
    job._began = time.monotonic() - 20
    assert how_far(job, before=0) == "Loading m: 25.0%, about 60 s left"
