from __future__ import annotations

import ctypes
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from skipviz.app.worker import GRACE, TICK, Job, Worker
from skipviz.errors import InputError, Stopped
from tests.waiting import wait_for

SOON = 2.0
"""Seconds in which a run that nobody waits for must have ended."""


class Sessions:
    """Sessions that are there until they are closed."""

    def __init__(self) -> None:
        self.closed: set[str] = set()

    def __call__(self, session: str) -> bool:
        return session not in self.closed


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def worker(sessions: Sessions) -> Iterator[Worker]:
    made = Worker(sessions)
    yield made
    made.close()


def steps(job: Job[Any]) -> str:
    """Work that would go on for a minute, and looks often whether it is to stop."""
    for _ in range(6000):
        if job.stop.is_set():
            raise Stopped
        time.sleep(0.01)
    return "done"


def started(worker: Worker, *followers: str, work: Callable[[Job[Any]], Any] = steps) -> Job[Any]:
    job: Job[Any] = Job()
    for session in followers:
        job.follow(session, "paths")
    worker.add(job, work)
    return job


def kill(thread: threading.Thread | None) -> None:
    assert thread is not None
    sent = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    )
    assert sent == 1


@pytest.mark.slow
def test_a_run_whose_session_ended_stops_and_the_next_begins(
    worker: Worker, sessions: Sessions
) -> None:
    first = started(worker, "a")
    second = started(worker, "b", work=lambda job: "done")
    wait_for(first.future.running)
    sessions.closed.add("a")
    assert wait_for(first.future.done) < SOON
    assert isinstance(first.problem, Stopped)
    assert second.future.result(SOON) == "done"


@pytest.mark.slow
def test_a_run_goes_on_while_one_of_two_sessions_waits(worker: Worker, sessions: Sessions) -> None:
    job = started(worker, "a", "b")
    wait_for(job.future.running)
    sessions.closed.add("a")
    time.sleep(GRACE + 3 * TICK)
    assert not job.stop.is_set()
    assert job.sessions == {"b"}
    sessions.closed.add("b")
    assert wait_for(job.future.done) < SOON


def test_a_run_that_waits_its_turn_is_dropped_with_its_session(
    worker: Worker, sessions: Sessions
) -> None:
    first, second = started(worker, "a"), started(worker, "b")
    sessions.closed.add("b")
    assert wait_for(second.future.done) < SOON
    assert not first.stop.is_set()


@pytest.mark.slow
def test_a_connection_that_comes_back_at_once_stops_nothing(
    worker: Worker, sessions: Sessions
) -> None:
    job = started(worker, "a")
    for _ in range(2):
        sessions.closed.add("a")
        time.sleep(2 * TICK)
        sessions.closed.clear()
        time.sleep(2 * TICK)
    assert not job.stop.is_set()


@pytest.mark.slow
def test_a_run_that_no_session_asked_for_is_left_alone(worker: Worker) -> None:
    assert started(worker, work=lambda job: time.sleep(GRACE + 2 * TICK)).future.result(9) is None


def test_the_queue_says_the_place(worker: Worker) -> None:
    made = [started(worker, "a") for _ in range(4)]
    wait_for(made[0].future.running)
    assert [worker.before(job) for job in made] == [0, 1, 2, 3]
    made[1].leave("a", "paths")  # it has not begun: it is gone at once
    assert [worker.before(job) for job in made[2:]] == [1, 2]
    made[0].leave("a", "paths")
    wait_for(made[0].future.done)
    wait_for(made[2].future.running)
    assert [worker.before(job) for job in made[2:]] == [0, 1]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, MemoryError])
def test_whatever_a_run_raises_the_next_one_runs(
    worker: Worker, error: type[BaseException]
) -> None:
    def fails(job: Job[Any]) -> None:
        raise error("of the run")

    first = started(worker, work=fails)
    second = started(worker, work=lambda job: "done")
    assert second.future.result(SOON) == "done"
    assert isinstance(first.problem, error)


def thread_named(name: str) -> threading.Thread:
    return [each for each in threading.enumerate() if each.name == name][-1]


def test_a_run_that_is_killed_leaves_nobody_waiting(worker: Worker) -> None:
    first = started(worker, "a")
    second = started(worker, "b", work=lambda job: "done")
    wait_for(first.future.running)
    kill(thread_named("skipviz run"))
    assert second.future.result(SOON) == "done"
    assert first.problem is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_ends_between_two_lines_fails(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(job: Job[Any], work: object) -> None:
        job.future.set_running_or_notify_cancel()
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Job, "done_by", ends)
        lost = started(worker, "a")
        wait_for(lost.future.done, seconds=SOON)
    assert "has ended" in str(lost.problem)
    assert started(worker, work=lambda job: "done").future.result(SOON) == "done"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_waits_brings_the_thread_that_sees_to_the_queue_back(
    worker: Worker, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = started(worker, "a"), started(worker, "b", work=lambda job: "done")
    wait_for(first.future.running)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "_present", lambda session: 1 / 0)
        thread = worker._thread
        assert thread is not None
        thread.join(SOON)
    assert worker.before(second) in (0, 1)  # as a page asks that waits
    assert second.future.result(SOON) == "done"
    assert "has ended" in str(first.problem)


@pytest.mark.slow
def test_a_run_that_does_not_look_up_is_left_behind(worker: Worker, sessions: Sessions) -> None:
    go = threading.Event()

    def deaf(job: Job[Any]) -> str:
        go.wait(30)
        return "too late"

    first, second = started(worker, "a", work=deaf), started(worker, "b", work=lambda job: "done")
    wait_for(first.future.running)
    sessions.closed.add("a")
    assert wait_for(second.future.done) < SOON + 0.2
    assert isinstance(first.problem, Stopped)
    go.set()
    thread_named("skipviz run").join(SOON)
    assert isinstance(first.problem, Stopped)


def test_a_failed_run_keeps_nothing_alive(worker: Worker) -> None:
    class Large:
        pass

    kept: list[weakref.ref[Large]] = []

    def fails(job: Job[Any]) -> None:
        large = Large()
        kept.append(weakref.ref(large))
        try:
            raise KeyError(str(large))
        except KeyError as error:
            raise InputError("of the run") from error  # others are logged, with their frames

    job = started(worker, work=fails)
    assert isinstance(job.future.exception(SOON), InputError)
    started(worker, work=lambda job: None).future.result(SOON)
    gc.collect()
    assert kept[0]() is None


def test_time_left_is_told_from_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("skipviz.app.worker.time.monotonic", lambda: now[0])
    job: Job[None] = Job()
    assert job.seconds_left is None
    job.begin("Loading")
    now[0] += 50
    job.begin("Running")
    job.share = 0.5
    assert job.seconds_left is None  # it has only begun
    now[0] += 10
    job.share = 0.25
    assert job.seconds_left == pytest.approx(30)
    job.share = 0.0
    assert job.seconds_left is None


def test_closing_stops_what_runs_and_what_waits() -> None:
    worker = Worker(lambda session: True)
    first, second = started(worker, "a"), started(worker, "b")
    wait_for(first.future.running)
    worker.close()
    assert isinstance(first.problem, Stopped)
    assert isinstance(second.problem, Stopped)
