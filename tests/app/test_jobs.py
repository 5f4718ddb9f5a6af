from __future__ import annotations

import copy
import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import skipviz
from skipviz.app import jobs
from skipviz.app.costs import Effort
from skipviz.app.jobs import ForgottenError, Jobs, Request, TokenIds, ids_of, kept_result
from skipviz.app.memory import held_bytes
from skipviz.app.worker import Job
from skipviz.budgets import Budgets
from skipviz.errors import InputError, Stopped
from skipviz.families.gated.settings import GatedSettings
from skipviz.recording import tracing
from skipviz.text.documents import Document
from tests import tiny
from tests.waiting import wait_for


def request(text: str = tiny.TEXT, *, model: str = "tiny") -> Request:
    return Request(model=model, documents=(Document(source="a", text=text),))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, gated: skipviz.SkipModel) -> Iterator[Jobs]:
    def load(name: str) -> skipviz.SkipModel:
        if name == "absent":
            raise LookupError("there is no model of that name")
        return gated

    monkeypatch.setattr(jobs, "load_served", load)
    made = Jobs()
    yield made
    made.close()


@pytest.fixture
def gatekeeper(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Hold every run until the second event is set; the first says that one has begun."""
    begun, go = threading.Event(), threading.Event()
    real: Callable[..., Any] = tracing.trace

    def held(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(tracing, "trace", held)
    return begun, go


def test_the_same_request_runs_once(worker: Jobs) -> None:
    first = worker.submit(request())
    assert len(first.future.result(30)) > 0
    again = worker.submit(request())
    assert again is first
    assert worker.runs == 1
    assert first.share == 1
    assert worker.costs.seconds(request().effort) is not None


def test_a_request_under_way_is_joined(
    worker: Jobs, gatekeeper: tuple[threading.Event, threading.Event]
) -> None:
    begun, go = gatekeeper
    first = worker.submit(request())
    assert begun.wait(30)
    assert first.stage == "Running tiny"
    assert worker.submit(request()) is first
    go.set()
    first.future.result(30)
    assert worker.runs == 1


@pytest.mark.parametrize(
    "other",
    [
        request("other"),
        request(model="another"),
        Request(model="tiny", documents=request().documents, budget=0.8),
        Request(model="tiny", documents=(Document(source="b", text=tiny.TEXT),)),
        Request(model="tiny", documents=(Document(source="a", text=tiny.TEXT),) * 2),
    ],
)
def test_whatever_differs_is_another_request(other: Request) -> None:
    assert other.key != request().key


def test_a_budget_is_set_for_its_run_alone(
    worker: Jobs, monkeypatch: pytest.MonkeyPatch, gated: skipviz.SkipModel
) -> None:
    settings = GatedSettings(
        backbone="tiny",
        backbone_sha256="",
        gates_sha256="",
        gates=tiny.GATES,
        thresholds=Budgets({0.8: 0.0, 0.4: 1e6}),
        budget=0.8,
        policy="learned",
    )
    model = dataclasses.replace(gated, settings=settings)
    monkeypatch.setattr(jobs, "load_served", lambda name: model)
    documents = request().documents
    lowest = worker.submit(Request(model="m", documents=documents, budget=0.4)).future.result(30)
    own = worker.submit(Request(model="m", documents=documents)).future.result(30)
    assert not lowest.matrix("exec_count").any()
    assert own.matrix("exec_count").any()
    assert (lowest.run["budget"].item(), own.run["budget"].item()) == (0.4, 0.8)


def test_where_one_document_ends_matters() -> None:
    def split(*parts: str) -> str:
        documents = tuple(Document(source="a", text=part) for part in parts)
        return Request(model="tiny", documents=documents).key

    assert split("ab", "c") != split("a", "bc")


def test_a_stopped_run_can_be_asked_for_again(
    worker: Jobs, gatekeeper: tuple[threading.Event, threading.Event]
) -> None:
    begun, go = gatekeeper
    first = worker.submit(request())
    assert begun.wait(30)
    first.stop.set()
    again = worker.submit(request())
    assert again is not first
    go.set()
    with pytest.raises(Stopped):
        first.future.result(30)
    assert len(again.future.result(30)) > 0


def test_a_recording_that_is_gone_is_not_made_again_by_a_model_of_its_name(worker: Jobs) -> None:
    job = worker.submit(dataclasses.replace(request(), stored="a file"))
    with pytest.raises(InputError, match="Upload the file again"):
        job.future.result(30)
    assert worker.runs == 0


def test_what_addresses_remember_is_bounded(worker: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "REQUEST_CHARACTERS", 20)
    asked = [request(letter * 9, model="absent") for letter in "abc"]
    for each in asked:
        worker.submit(each)
    assert [worker.named(each.address) is not None for each in asked] == [False, True, True]
    worker.submit(dataclasses.replace(asked[0], ids=TokenIds(((1, 2, 3),))))
    assert [worker.named(each.address) for each in asked] == [None] * 3, "ids take more than texts"


def test_token_ids_are_looked_through_once_for_all_requests_that_share_them() -> None:
    ids = TokenIds(((1, 2), (3,)))
    known = dataclasses.replace(request(), ids=ids)
    assert known.key != request().key != dataclasses.replace(known, ids=TokenIds(((1, 2),))).key
    again = dataclasses.replace(known, weights="others")
    assert again.key != known.key
    assert again.ids.digest is ids.digest


def test_a_failure_reaches_who_asked_and_is_not_kept(worker: Jobs) -> None:
    first = worker.submit(request(model="absent"))
    with pytest.raises(LookupError, match="no model of that name"):
        first.future.result(30)
    assert worker.submit(request(model="absent")) is not first
    assert len(worker.submit(request()).future.result(30)) > 0


def test_results_are_bounded_by_bytes_and_the_one_not_looked_at_for_longest_goes_first(
    worker: Jobs, gated: skipviz.SkipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = jobs.ENTRY_BYTES + held_bytes(skipviz.trace(gated, "1"))
    monkeypatch.setattr(jobs, "RESULT_BYTES", 3.5 * size)
    made = [worker.submit(request(number)) for number in ("1", "2", "3")]
    for job in made:
        job.future.result(30)
    worker.look_at(made[0])
    worker.submit(request("4")).future.result(30)
    last = worker.submit(request("5"))
    last.future.result(30)
    wait_for(lambda: worker.submit(request("5")) is last and kept_result(made[2]) is None)
    assert worker.submit(request("1")) is made[0]
    assert isinstance(made[1].problem, ForgottenError)
    assert worker.submit(request("2")) is not made[1]


def test_a_result_larger_than_all_that_may_be_kept_is_shown_once(
    worker: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RESULT_BYTES", 1)
    first, second = worker.submit(request("1")), worker.submit(request("2"))
    assert len(second.future.result(30)) > 0
    wait_for(lambda: kept_result(first) is None)
    assert kept_result(second) is not None


def test_what_is_made_at_once_is_made_once_while_it_is_kept(
    worker: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def make() -> list[int]:
        calls.append(1)
        return calls

    assert worker.made("k", make) is worker.made("k", make) is calls
    assert len(calls) == 1
    monkeypatch.setattr(jobs, "RESULT_BYTES", 1)
    worker.made("other", lambda: [2])
    worker.made("k", make)
    assert len(calls) == 2


@pytest.mark.slow
def test_a_model_that_is_not_in_use_makes_room(
    monkeypatch: pytest.MonkeyPatch, gated: skipviz.SkipModel
) -> None:
    loaded: dict[str, weakref.ref[Any]] = {}

    def load(name: str) -> skipviz.SkipModel:
        model = copy.deepcopy(gated.model)
        loaded[name] = weakref.ref(model)
        return dataclasses.replace(gated, model=model)

    def fail(model: skipviz.SkipModel, *_: Any) -> None:
        state = torch.zeros(3)
        raise InputError(f"of {model.name} at {state}")

    monkeypatch.setattr(jobs, "load_served", load)
    monkeypatch.setattr(jobs, "MODEL_BYTES", 0)
    worker = Jobs()
    for name in ("a", "b", "c"):
        assert len(worker.submit(request(model=name)).future.result(30)) > 0
        failed: Job[None] = worker.experiment(request(model=name), "fails", fail)
        assert isinstance(failed.future.exception(30), InputError)
    assert [name for name, model in loaded.items() if model() is not None] == ["c"]
    worker.close()


def test_a_folder_written_again_is_loaded_again(
    worker: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gated: skipviz.SkipModel
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(jobs, "load_served", lambda name: loaded.append(name) or gated)
    (tmp_path / "skipviz.json").write_text("{}")
    worker.submit(request(model=str(tmp_path))).future.result(30)
    worker.submit(request("other", model=str(tmp_path))).future.result(30)
    assert len(loaded) == 1
    import os

    os.utime(tmp_path / "skipviz.json", (1, 1))
    worker.submit(request("third", model=str(tmp_path))).future.result(30)
    assert len(loaded) == 2


def test_a_run_that_waits_is_stopped_at_once(
    worker: Jobs, gatekeeper: tuple[threading.Event, threading.Event]
) -> None:
    begun, go = gatekeeper
    first, second = worker.submit(request()), worker.submit(request("other"))
    assert begun.wait(30)
    second.halt()
    assert second.future.done()
    assert isinstance(second.problem, Stopped)
    go.set()
    assert first.problem is None or first.future.result(30)
    assert len(worker.submit(request("other")).future.result(30)) > 0
    assert worker.runs == 2  # the one that was stopped has not run


def test_a_run_that_nobody_waits_for_any_more_is_stopped(
    worker: Jobs, gatekeeper: tuple[threading.Event, threading.Event]
) -> None:
    begun, go = gatekeeper
    job = worker.submit(request())
    assert begun.wait(30)
    job.follow("one", "paths")
    job.follow("other", "paths")
    job.leave("one", "paths")
    job.leave("a third", "paths")  # who never waited
    assert not job.stop.is_set()
    job.leave("other", "paths")
    assert job.stop.is_set()
    go.set()
    with pytest.raises(Stopped):
        job.future.result(30)


def test_a_job_that_is_done_is_left_as_it_is(worker: Jobs) -> None:
    job = worker.submit(request())
    job.future.result(30)
    job.follow("one", "paths")
    job.leave("one", "paths")
    assert not job.stop.is_set()
    assert worker.submit(request()) is job


def test_a_folder_that_cannot_be_read_has_a_key() -> None:
    assert request(model="x" * 300 + "/y").key


def test_a_run_under_way_is_not_forgotten(
    worker: Jobs,
    gatekeeper: tuple[threading.Event, threading.Event],
    gated: skipviz.SkipModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go = gatekeeper
    first = worker.submit(request())
    assert begun.wait(30)
    monkeypatch.setattr(jobs, "RESULT_BYTES", 1)
    for number in range(3):
        worker.keep(request(f"text {number}"), skipviz.trace(gated, "done"))
    assert worker.submit(request()) is first
    go.set()
    first.future.result(30)
    assert worker.runs == 1


def test_an_experiment_teaches_how_long_its_like_takes(worker: Jobs) -> None:
    effort = Effort("sleeps", 10)
    assert worker.costs.seconds(effort) is None

    def run(*_: Any) -> str:
        time.sleep(0.2)
        return "done"

    def fails(*_: Any) -> str:
        raise InputError("No.")

    failed = worker.experiment(request(), "fails", fails)
    failed.effort = effort
    failed.future.exception(30)
    assert worker.costs.seconds(effort) is None
    slept = worker.experiment(request(), "sleeps", run)
    slept.effort = effort
    slept.future.result(30)
    expected = worker.costs.seconds(Effort("sleeps", 20))
    assert expected is not None
    assert 0.4 <= expected < 0.8


@pytest.mark.slow
def test_a_model_that_loads_for_long_holds_no_other_up_and_is_loaded_once(
    monkeypatch: pytest.MonkeyPatch, gated: skipviz.SkipModel
) -> None:
    loaded: list[str] = []
    fetched = threading.Event()

    def load(name: str) -> skipviz.SkipModel:
        loaded.append(name)
        if name == "large":
            assert fetched.wait(30)
        return gated

    monkeypatch.setattr(jobs, "load_served", load)
    gone: set[str] = set()
    worker = Jobs(lambda session: session not in gone)
    first, second = worker.submit(request(model="large")), worker.submit(request(model="small"))
    first.follow("a", "paths")
    wait_for(lambda: loaded)
    gone.add("a")
    assert wait_for(first.future.done) < 2
    assert len(second.future.result(30)) > 0
    assert isinstance(first.problem, Stopped)
    third = worker.submit(request("other", model="large"))
    wait_for(third.future.running)
    fetched.set()
    assert len(third.future.result(30)) > 0
    assert loaded == ["large", "small"]
    worker.close()


def test_a_text_that_was_written_is_run_again_from_its_tokens(
    worker: Jobs, gated: skipviz.SkipModel
) -> None:
    ids = [each for letter in "The fox" for each in gated.tokenizer(letter)["input_ids"]]
    recorded = skipviz.trace(gated, ids)
    assert ids_of(recorded) != ids_of(skipviz.trace(gated, "The fox"))
    again = dataclasses.replace(request("The fox"), ids=ids_of(recorded))
    assert again.key != request("The fox").key
    made = worker.submit(again).future.result(30)
    assert ids_of(made) == ids_of(recorded)
    assert made.tokens["source"].to_list() == ["a"] * len(ids)


def test_texts_that_become_other_tokens_are_not_passed_off_as_what_was_traced(
    worker: Jobs, gated: skipviz.SkipModel
) -> None:
    two = request().documents * 2
    own = ids_of(skipviz.trace(gated, list(two)))
    same = dataclasses.replace(request(), documents=two, ids=own)
    assert ids_of(worker.submit(same).future.result(30)) == own
    other = dataclasses.replace(same, ids=TokenIds((own.texts[0], own.texts[1][:-1])))
    problem = worker.submit(other).future.exception(30)
    assert isinstance(problem, InputError)
    assert "become other tokens" in str(problem)


def test_a_run_that_was_stopped_teaches_what_it_would_have_taken(
    worker: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipviz.app.worker.LEAST_SECONDS", 0.2)
    half = threading.Event()

    def run(_: Any, shown: Callable[[float], None], stop: threading.Event) -> str:
        time.sleep(0.5)
        shown(0.25)
        half.set()
        assert stop.wait(30)
        raise Stopped

    job = worker.experiment(request(), "is stopped", run)
    job.effort = Effort("is stopped", 10)
    assert half.wait(30)
    job.halt()
    with pytest.raises(Stopped):
        job.future.result(30)
    wait_for(lambda: worker.costs.seconds(Effort("is stopped", 10)) is not None)
    expected = worker.costs.seconds(Effort("is stopped", 10))
    assert expected is not None
    assert 2.0 <= expected < 6.0
