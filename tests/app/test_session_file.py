"""A session's file: it comes back as it was, and what is no session gets a sentence."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

import pytest

from skipviz.app.components.downloads import trace_file
from skipviz.app.session_file import (
    INDEX,
    MOST_INDEX_BYTES,
    MOST_TRACES,
    SavedTrace,
    is_session,
    read_session,
    session_file,
)
from skipviz.errors import TextError, TraceError
from tests.synthetic import make_trace

ROOM = 20 * 2**20


def packed(entries: Mapping[str, bytes], *, kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def index(*places: object, form: object = 1) -> bytes:
    return json.dumps({"format": form, "traces": list(places)}).encode()


def test_a_session_comes_back_as_it_was() -> None:
    traces = [make_trace(tokens=7), make_trace(tokens=5, sequences=2)]
    content = session_file(
        [SavedTrace(traces[0], token=3, site=1), SavedTrace(traces[1])], most_bytes=ROOM
    )
    assert is_session(content)
    found = read_session(content, name="s.zip")
    assert [(each.token, each.site) for each in found] == [(3, 1), (None, None)]
    for each, trace in zip(found, traces, strict=True):
        assert trace_file(each.trace) == trace_file(trace)
    assert found[0].digest != found[1].digest
    assert content == session_file(found, most_bytes=ROOM)


def test_what_does_not_fit_is_left_out_but_never_what_is_shown() -> None:
    traces = [SavedTrace(make_trace(tokens=5)) for _ in range(MOST_TRACES + 3)]
    whole = session_file(traces, most_bytes=ROOM)
    assert len(read_session(whole, name="s.zip")) == MOST_TRACES
    one = len(trace_file(traces[0].trace))
    assert len(read_session(session_file(traces, most_bytes=1), name="s.zip")) == 1
    two = session_file(traces, most_bytes=MOST_INDEX_BYTES + 2 * one)
    assert len(read_session(two, name="s.zip")) == 2


@pytest.mark.parametrize("token", [-1, 99, 10**30, 1.5, "3", True, [3], None])
def test_a_selection_that_is_none_selects_nothing(token: object) -> None:
    content = packed(
        {
            INDEX: index({"token": token, "site": token}),
            "0.parquet": trace_file(make_trace(tokens=7)),
        }
    )
    (found,) = read_session(content, name="s.zip")
    assert (found.token, found.site) == (None, None)


def hostile() -> dict[str, tuple[bytes, str]]:
    trace = trace_file(make_trace(tokens=5))
    good = {INDEX: index({}), "0.parquet": trace}
    lying = bytearray(packed({INDEX: index({}), "0.parquet": b"\0" * 99}))
    lying[lying.rindex(b"PK\x01\x02") + 20] = 7  # the directory names another size
    return {
        "nothing": (b"PK", "cannot be read as a session"),
        "cut": (packed(good)[:-40], "cannot be read as a session"),
        "lying": (bytes(lying), "cannot be read as a session"),
        "a bomb": (
            packed({INDEX: b" " * 9_000_000}, kind=zipfile.ZIP_DEFLATED),
            "is compressed",
        ),
        "many": (packed({str(n): b"" for n in range(MOST_TRACES + 2)}), "at most"),
        "a path": (packed({INDEX: index({}), "../0.parquet": trace}), "does not contain"),
        "more": (packed(good | {"1.parquet": trace}), "does not contain"),
        "fewer": (packed({INDEX: index({}, {}), "0.parquet": trace}), "does not contain"),
        "no index": (packed({"0.parquet": trace}), "does not say"),
        "no JSON": (packed(good | {INDEX: b"{"}), "does not say"),
        "deep": (packed(good | {INDEX: b"[" * 60_000}), "does not say"),
        "a long index": (packed(good | {INDEX: b" " * 70_000}), "too long"),
        "another kind": (packed(good | {INDEX: index(3)}), "does not say"),
        "empty": (packed({INDEX: index()}), "does not say"),
        "later": (packed(good | {INDEX: index({}, form=2)}), "Update skipviz"),
        "no format": (packed(good | {INDEX: index({}, form="1")}), "does not say"),
        "no trace": (packed(good | {"0.parquet": b"PAR1"}), "cannot be read as a trace"),
    }


@pytest.mark.parametrize("name", hostile())
def test_what_is_no_session_gets_a_sentence(name: str) -> None:
    content, said = hostile()[name]
    with pytest.raises((TextError, TraceError), match=said):
        read_session(content, name="s.zip")
