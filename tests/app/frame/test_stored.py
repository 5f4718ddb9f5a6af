from __future__ import annotations

import dataclasses
import io

import pytest
import streamlit
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

import skipviz
from skipviz.app.frame.stored import request_of, stored_trace
from skipviz.app.jobs import Jobs, Request
from skipviz.errors import ModelError, TextError
from tests import tiny
from tests.synthetic import make_trace

TEXTS = (tiny.TEXT, "Two 🤷🏽‍♀️ lines\nand a tab\t.")


@pytest.fixture
def trace(gated: skipviz.SkipModel) -> skipviz.Trace:
    documents = [skipviz.Document(f"doc{n}", text) for n, text in enumerate(TEXTS)]
    return skipviz.trace(gated, documents)


def test_a_trace_gives_back_its_texts_and_its_model(trace: skipviz.Trace) -> None:
    request = request_of(trace, stored="file")
    assert tuple(document.text for document in request.documents) == TEXTS
    assert [document.source for document in request.documents] == ["doc0", "doc1"]
    run = trace.run.row(0, named=True)
    assert (request.model, request.weights) == (run["model"], run["weights_sha256"])


def test_a_kept_trace_is_found_and_nothing_is_run(trace: skipviz.Trace) -> None:
    jobs = Jobs()
    request = request_of(trace, stored="file")
    jobs.keep(request, trace)
    assert jobs.submit(request).future.result(timeout=5) is trace
    assert jobs.runs == 0


def test_other_weights_are_refused(
    gated: skipviz.SkipModel, trace: skipviz.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipviz.app.jobs.load_served", lambda name: gated)
    jobs = Jobs()
    right = dataclasses.replace(request_of(trace, stored="file"), weights=gated.weights_sha256)
    wrong = dataclasses.replace(right, weights="0" * 64)

    def ask(request: Request) -> skipviz.SkipModel:
        job = jobs.experiment(request, "nothing", lambda model, progress, stop: model)
        return job.future.result(timeout=5)

    assert ask(right) is gated
    with pytest.raises(ModelError, match="other weights"):
        ask(wrong)


def uploaded(
    trace: skipviz.Trace, monkeypatch: pytest.MonkeyPatch
) -> tuple[Request, skipviz.Trace]:
    """Take up a trace as the page does with a file that somebody uploads."""
    file = io.BytesIO()
    trace.save(file)
    record = UploadedFileRec("1", "mine.parquet", "application/octet-stream", file.getvalue())
    upload = UploadedFile(record, FileURLs())
    monkeypatch.setattr(streamlit, "session_state", SessionState())
    return stored_trace(upload)


class SessionState(dict[str, object]):
    __setattr__ = dict.__setitem__


def test_an_uploaded_trace_without_tokens_is_refused(
    trace: skipviz.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, found = uploaded(trace, monkeypatch)
    assert found.tokens.equals(trace.tokens)
    assert request.documents[0].text == TEXTS[0]
    with pytest.raises(TextError, match=r"mine\.parquet contains a trace of 0 tokens"):
        uploaded(make_trace(tokens=0), monkeypatch)


def test_a_trace_of_more_tokens_than_are_served_is_refused(
    trace: skipviz.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKIPVIZ_TOKENS", "20")
    with pytest.raises(TextError, match="and this page runs at most 20 at a time"):
        uploaded(trace, monkeypatch)
