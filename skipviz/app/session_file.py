"""A session in a file: its traces, what is shown and what is selected, as a ZIP."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skipviz.app.components.downloads import trace_file
from skipviz.app.served import check_token_count
from skipviz.errors import TextError
from skipviz.traces import Trace

SESSION_FORMAT = 1
INDEX = "session.json"
MOST_TRACES = 13
"""In a file: what is shown, and recent runs."""
MOST_INDEX_BYTES = 64 * 2**10
WRITE_ANEW = "Save the session again from the app."
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the same session makes the same file."""


@dataclass(frozen=True, eq=False)
class SavedTrace:
    """A trace of a session.

    Attributes
    ----------
    trace
        The trace.
    token, site
        What is selected in it, as indices; None where nothing is.
    digest
        SHA-256 of the trace's file, in hexadecimal; empty where it was not read from one.
    """

    trace: Trace
    token: int | None = None
    site: int | None = None
    digest: str = ""


def session_file(traces: Sequence[SavedTrace], *, most_bytes: int) -> bytes:
    """Return a session as a file.

    Parameters
    ----------
    traces
        What is shown, and other runs, the latest first.
    most_bytes
        That the file may take. The last traces are left out where they do not fit; the first stays.
    """
    kept: list[tuple[SavedTrace, bytes]] = []
    room = most_bytes - MOST_INDEX_BYTES
    for each in traces[:MOST_TRACES]:
        content = trace_file(each.trace)
        room -= len(content)
        if kept and room < 0:
            break
        kept.append((each, content))
    index = {
        "format": SESSION_FORMAT,
        "traces": [{"token": each.token, "site": each.site} for each, _ in kept],
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # nothing is compressed: traces are already
        archive.writestr(zipfile.ZipInfo(INDEX, _DATE), json.dumps(index))
        for number, (_, content) in enumerate(kept):
            archive.writestr(zipfile.ZipInfo(_name(number), _DATE), content)
    return buffer.getvalue()


def is_session(content: bytes) -> bool:
    """Say whether a file may be a session rather than a trace."""
    return content.startswith(b"PK")


def read_session(content: bytes, *, name: str) -> list[SavedTrace]:
    """Return the traces of a session, first the one that is shown.

    No name in the file is used as one here, and nothing in it is compressed, so that what is read
    is never larger than the file.

    Raises
    ------
    TextError
        If it is no session, is damaged, or holds what no session does.
    TraceError
        If a trace in it is not good.
    InputError
        If a trace has more tokens than this page allows: those after it are not read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_TRACES + 1:
                raise TextError(
                    f"{name} contains {len(entries):,} files, and a session at most "
                    f"{MOST_TRACES + 1}. {WRITE_ANEW}"
                )
            sizes = sum(entry.file_size for entry in entries)
            packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if packed or sizes > len(content):
                raise TextError(
                    f"{name} is compressed, and a session never is. Open the file that the app "
                    "saved, not one packed again."
                )
            contents = {entry.filename: archive.read(entry) for entry in entries}
    except TextError:
        raise
    except Exception as error:  # the library raises many kinds, for many kinds of damage
        raise TextError(
            f"{name} cannot be read as a session ({type(error).__name__}: {error!s:.100}). "
            f"{WRITE_ANEW}"
        ) from error
    places = _places(contents.pop(INDEX, b""), name=name)
    if set(contents) != {_name(number) for number in range(len(places))}:
        raise TextError(f"{name} does not contain the traces that it lists. {WRITE_ANEW}")
    return [
        _placed(contents[_name(number)], place, name=f"{name}, trace {number}")
        for number, place in enumerate(places)
    ]


def _name(number: int) -> str:
    return f"{number}.parquet"


def _places(index: bytes, *, name: str) -> list[dict[str, Any]]:
    """Return what is selected in each trace, as the file says."""
    if len(index) > MOST_INDEX_BYTES:
        raise TextError(f"{name} has a list of traces that is too long. {WRITE_ANEW}")
    try:
        said = json.loads(index)
        given, places = said["format"], said["traces"]
        good = isinstance(places, list) and places and all(isinstance(p, dict) for p in places)
    except (ValueError, TypeError, KeyError, RecursionError):
        given, good = None, False
    if isinstance(given, int) and given > SESSION_FORMAT:
        raise TextError(
            f"{name} is a session of format {given}, and this skipviz reads formats up to "
            f"{SESSION_FORMAT}. Update skipviz."
        )
    if given != SESSION_FORMAT or not good:
        raise TextError(f"{name} does not say what is in the session. {WRITE_ANEW}")
    return list(places)


def _placed(content: bytes, place: dict[str, Any], *, name: str) -> SavedTrace:
    trace = Trace.load(io.BytesIO(content))
    if not len(trace):
        raise TextError(f"{name} has 0 tokens. {WRITE_ANEW}")
    check_token_count(len(trace))

    def index_of(what: str, count: int) -> int | None:
        given = place.get(what)
        return given if type(given) is int and 0 <= given < count else None

    return SavedTrace(
        trace,
        token=index_of("token", len(trace)),
        site=index_of("site", trace.sites.height),
        digest=hashlib.sha256(content).hexdigest(),
    )
