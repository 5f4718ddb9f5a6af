"""A trace saved before, taken up again: its pages open without a run of the model."""

from __future__ import annotations

import hashlib
import io

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from skipviz.analysis.tokens.classes import text_of_tokens
from skipviz.app.jobs import Request, ids_of
from skipviz.app.served import check_token_count
from skipviz.app.state import state
from skipviz.errors import InputError, TextError, TraceError
from skipviz.recording.recorded_file import is_recording, read_recording
from skipviz.text.documents import Document
from skipviz.traces import Trace

FREE = ("learned", "static", "random", "dense", "none")
"""Policies that are a model's only one. Others are chosen by name; where a model has none of that
name, as of a guarded or a forced trace, it says so instead of deciding otherwise."""


def uploaded() -> UploadedFile:
    """Offer an upload of a trace or a session, and return it.

    Raises
    ------
    TextError
        If nothing has been uploaded.
    """
    upload: UploadedFile | None = st.file_uploader(
        "Upload a trace or a session", type=["parquet", "jsonl", "zip"], key="stored",
        help="A file from “Trace” under Downloads, from `skipviz trace --parquet`, a recording "
        "made elsewhere (.jsonl), or a session (.zip) that “Save the session” saved. Nothing is "
        "run to show it.",
    )  # fmt: skip
    if upload is None:
        state().session = None
        raise TextError("No trace has been uploaded yet. Choose a file that skipviz saved.")
    return upload


def stored_trace(upload: UploadedFile) -> tuple[Request, Trace]:
    """Return the trace in an upload, behind what would have made it.

    Raises
    ------
    TextError
        If it is no trace with tokens.
    """
    known = state().stored
    if known is not None and known[0] == upload.file_id:
        return known[1:]  # read once, and not at every rerun of the page
    try:
        trace = _read(upload.getvalue(), upload.name)
    except TraceError as error:
        raise TextError(str(error)) from error
    if not len(trace):
        raise TextError(f"{upload.name} contains a trace of 0 tokens. Trace a text and save that.")
    try:
        check_token_count(len(trace))
    except InputError as error:
        raise TextError(str(error)) from error
    digest = hashlib.sha256(upload.getvalue()).hexdigest()
    request = request_of(trace, stored=digest)
    state().stored = (upload.file_id, request, trace)
    return request, trace


def _read(content: bytes, name: str) -> Trace:
    if is_recording(content):
        return read_recording(io.BytesIO(content), name=name)[0]
    return Trace.load(io.BytesIO(content))


def request_of(trace: Trace, *, stored: str) -> Request:
    """Return the request that a trace is the result of; ``stored`` is the SHA-256 of its file."""
    run = trace.run.row(0, named=True)
    return Request(
        model=run["model"],
        documents=tuple(documents_of(trace)),
        budget=run["budget"],
        policy=None if run["policy"] in FREE else run["policy"],
        weights=run["weights_sha256"],
        setup=run["setup_sha256"],
        stored=stored,
        ids=ids_of(trace),
    )


def documents_of(trace: Trace) -> list[Document]:
    """Return the texts of a trace."""
    ordered = trace.tokens.group_by("sequence", maintain_order=True)
    return [
        Document(source=tokens["source"][0], text=text_of_tokens(tokens))
        for (_,), tokens in ordered
    ]
