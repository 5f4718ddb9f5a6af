"""The side bar's session: what is saved, and what an upload comes to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.components.downloads import trace_file
from skipviz.app.frame import kept_session
from skipviz.app.frame.recent_runs import recent_runs
from skipviz.app.session_file import INDEX, SavedTrace, session_file
from skipviz.app.state import State
from tests.app.pages import PATIENCE
from tests.app.test_session_file import index, packed
from tests.synthetic import make_trace

ROOM = 20 * 2**20


def opened() -> None:
    """The script of the side bar with a session that was uploaded."""
    import streamlit as st
    from streamlit.proto.Common_pb2 import FileURLs
    from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

    from skipviz.app.frame.kept_session import offer_to_open
    from skipviz.errors import TextError

    record = UploadedFileRec("1", "s.zip", "application/zip", st.session_state["file"])
    try:
        offer_to_open(UploadedFile(record, FileURLs()))
    except TextError as error:
        st.error(str(error))


def saved() -> None:
    """The script of the side bar where one of two recent runs is kept no longer."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.frame.kept_session import offer_session_file
    from skipviz.app.frame.recent_runs import recent_runs
    from skipviz.app.jobs import Request
    from skipviz.app.sessions import this_visitor
    from skipviz.app.state import state
    from tests.synthetic import make_trace

    shown, kept, gone = (
        Request(model="synthetic", documents=(skipviz.Document("mine", text),), stored=text)
        for text in ("shown", "kept", "gone")
    )
    for request in (shown, kept):
        jobs().keep(request, make_trace(tokens=5))
    for request in (shown, kept, gone):
        recent_runs().add(this_visitor(), request)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(shown), asked=shown.key, request=shown)
    offer_session_file()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read as sessions."""
    monkeypatch.setenv("SKIPVIZ_TOKENS", "20")
    names: list[str] = []
    read_session = kept_session.read_session

    def read(content: bytes, *, name: str) -> list[SavedTrace]:
        names.append(name)
        return read_session(content, name=name)

    monkeypatch.setattr(kept_session, "read_session", read)
    return names


def with_session(content: bytes) -> AppTest:
    page = AppTest.from_function(opened)
    page.session_state["file"] = content
    page.run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    return page


def session_of(traces: Sequence[skipviz.Trace]) -> bytes:
    return session_file([SavedTrace(trace, token=2) for trace in traces], most_bytes=ROOM)


def test_a_session_of_allowed_runs_is_opened_however_many_tokens_they_have(
    reads: list[str],
) -> None:
    page = with_session(session_of([make_trace(tokens=15), make_trace(tokens=16)]))
    assert page.caption[0].value.startswith("A session: 2 traces")
    page.button(key="open session").click().run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    assert page.caption[0].value.startswith("This session is open")
    remembered: State = page.session_state["skipviz"]
    assert remembered.session == ("1", []), "its traces are with the results, which are bounded"
    assert len(remembered.canvases) == 2
    assert reads == ["s.zip"]


def test_a_session_with_a_run_that_is_too_long_is_refused_at_once_and_once(
    reads: list[str],
) -> None:
    first = trace_file(make_trace(tokens=21))
    page = with_session(packed({INDEX: index({}, {}), "0.parquet": first, "1.parquet": b"none"}))
    assert "runs at most 20 at a time" in page.error[0].value
    page.run(timeout=PATIENCE)
    assert "runs at most 20 at a time" in page.error[0].value
    assert reads == ["s.zip"]


def test_what_is_no_longer_kept_is_not_left_out_in_silence() -> None:
    recent_runs.clear()
    page = AppTest.from_function(saved).run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    (caption,) = page.caption
    assert caption.value == "1 of 2 recent runs is still kept here, and can be saved."
