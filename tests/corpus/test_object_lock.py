"""One run at a time writes to a folder of an object store, whatever became of the one before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import skipviz
from skipviz.corpus import object_lock
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.object_lock import ObjectLock

WHERE = "memory://locked/corpus"
PATH = "/locked/corpus/.lock"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store in memory, and locks that do not wait long."""
    import fsspec

    for name, seconds in (
        ("LEASE_SECONDS", 0.6), ("BEAT_SECONDS", 0.05), ("LOOK_AGAIN_SECONDS", 0.02),
        ("SETTLING_SECONDS", 0.02),
    ):  # fmt: skip
        monkeypatch.setattr(object_lock, name, seconds)
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_a_second_run_is_refused_and_one_after_it_is_not(store: Any) -> None:
    with DatasetFolder(WHERE).held():
        began = time.monotonic()
        with (
            pytest.raises(skipviz.InputError, match=r"Another run, process \d+ on .* is writing"),
            DatasetFolder(WHERE).held(),
        ):
            pass
        assert time.monotonic() - began < 0.5  # it sees that the first lives, and waits no longer
        assert store.exists(PATH)
    assert not store.exists(PATH)
    with DatasetFolder(WHERE).held():
        assert store.exists(PATH)


def test_the_unfinished_files_of_a_run_are_not_swept_by_another(store: Any) -> None:
    first = DatasetFolder(WHERE)
    with first.held():
        staged = first.stage("tokens/000000-x.parquet", b"at work", rows=0)
        with pytest.raises(skipviz.InputError, match="Another run"):
            skipviz.trace_corpus(lambda: pytest.fail("no model"), __file__, out=WHERE)
        first.commit(staged)
    assert first.exists("tokens/000000-x.parquet")


def test_the_lock_of_a_run_that_was_killed_is_taken_by_one_of_several(store: Any) -> None:
    store.pipe_file(PATH, b'{"run": "gone", "beat": 3, "machine": "m", "process": 1}')
    got: list[ObjectLock] = []
    refused: list[skipviz.InputError] = []

    def begin() -> None:
        try:
            got.append(ObjectLock(store, PATH, called="it"))
        except skipviz.InputError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(got), len(refused)) == (1, 3)
    got[0].check()
    got[0].release()
    assert not store.exists(PATH)


def test_a_run_that_slept_while_another_took_its_lock_writes_nothing_more(store: Any) -> None:
    folder = DatasetFolder(WHERE)
    with folder.held():
        staged = folder.stage("tokens/000000-x.parquet", b"late", rows=0)
        store.pipe_file(PATH, b'{"run": "other", "machine": "another", "process": 7}')
        time.sleep(0.3)
        with pytest.raises(skipviz.InputError, match="process 7 on another writes to"):
            folder.commit(staged)
    assert not folder.exists("tokens/000000-x.parquet")
    assert store.exists(PATH)  # which is the other's


class _ConnectionClosedError(Exception):
    """As those of botocore, which are no ``OSError``."""


def test_a_store_that_does_not_answer_for_a_while_is_asked_again(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DatasetFolder(WHERE)
    whole = type(store).cat_file

    def closed(*_: Any, **__: Any) -> None:
        raise _ConnectionClosedError("Connection was closed")

    with folder.held():
        staged = folder.stage("tokens/000000-x.parquet", b"at work", rows=0)
        monkeypatch.setattr(type(store), "cat_file", closed)
        time.sleep(0.8)
        with pytest.raises(skipviz.InputError, match=r"could not renew .*Connection was closed"):
            folder.commit(staged)
        monkeypatch.setattr(type(store), "cat_file", whole)
        before = store.cat_file(PATH)
        time.sleep(0.3)
        assert store.cat_file(PATH) != before  # it is still rewritten
        folder.commit(staged)
        monkeypatch.setattr(type(store), "cat_file", closed)
    monkeypatch.setattr(type(store), "cat_file", whole)
    assert folder.exists("tokens/000000-x.parquet")
    assert store.exists(PATH)  # the next run waits until it is clear that no one rewrites it
    with DatasetFolder(WHERE).held():
        pass
    assert not store.exists(PATH)


def test_a_store_that_refuses_to_write_is_said_to(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    with (
        pytest.raises(skipviz.InputError, match=r"cannot be written \(Access Denied"),
        DatasetFolder(WHERE).held(),
    ):
        pass
