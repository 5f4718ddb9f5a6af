"""The session as a file: saved in the side bar, and opened again."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import PATHS, jobs, traced_now
from skipviz.app.frame.opening import show_request
from skipviz.app.frame.recent_runs import recent_runs
from skipviz.app.frame.stored import request_of
from skipviz.app.session_file import SavedTrace, read_session, session_file
from skipviz.app.sessions import this_visitor
from skipviz.app.state import on_canvas, state
from skipviz.errors import InputError, TextError
from skipviz.folders import BACKBONE, sample_folders


def offer_session_file() -> None:
    """Offer to save what is shown and the visitor's recent runs, with what is selected."""
    known = traced_now()
    if known is None:
        return
    request, trace = known
    on = on_canvas(request)
    shown = state().runs[PATHS].finished
    others = [
        jobs().kept(run.request)
        for run in recent_runs().of(this_visitor())
        if shown is None or run.request.key != shown.request.key
    ]
    kept = [SavedTrace(other) for other in others if other is not None]

    def made() -> bytes:  # with what is selected by then
        here = SavedTrace(trace, on.selection.token, on.selection.site)
        return session_file([here, *kept], most_bytes=upload_bytes())

    st.download_button(
        "Save the session",
        made,
        file_name="skipviz-session.zip",
        mime="application/zip",
        on_click="ignore",
        type="tertiary",
        key="save session",
        help="One file with the text that is shown, what is selected, and your recent runs, the "
        "latest first: those that are still kept here, and as many as fit into "
        f"{upload_bytes() // 2**20:,} MB. “Trace” above opens it again.",
    )
    if len(kept) < len(others):
        are = "is" if len(kept) == 1 else "are"
        st.caption(
            f"{len(kept)} of {len(others)} recent runs {are} still kept here, and can be saved."
        )


def upload_bytes() -> int:
    """Return how large an uploaded file may be."""
    return int(st.get_option("server.maxUploadSize")) * 2**20


def offer_to_open(upload: UploadedFile) -> None:
    """Offer to open a session, once its file has been read.

    Parameters
    ----------
    upload
        A file that may be a session.

    Raises
    ------
    TextError
        If the file is not good.
    """
    known = state().session
    if known is None or known[0] != upload.file_id:  # read once, and not at every rerun of the page
        known = state().session = (upload.file_id, _read(upload))
    traces = known[1]
    if isinstance(traces, str):
        raise TextError(traces)
    number = len(traces)
    if not number:
        st.caption("This session is open: its traces are shown, and under Recent runs.")
        return
    said = f"{number} trace{'' if number == 1 else 's'}, first {plain(_told(traces[0]))}."
    st.caption(f"A session: {said} Showing it runs no model.")
    st.button(
        "Open the session", type="primary", width="stretch", key="open session",
        on_click=open_session, args=(upload.file_id, traces),
    )  # fmt: skip


def _read(upload: UploadedFile) -> list[SavedTrace] | str:
    """Return the traces of a session, or why they are not to be had."""
    try:
        return read_session(upload.getvalue(), name=upload.name)
    except InputError as error:
        return str(error)


def _told(saved: SavedTrace) -> str:
    run = saved.trace.run.row(0, named=True)
    return f"{saved.trace.tokens['source'][0]}, traced by {run['model']}"


def open_session(file: str, traces: list[SavedTrace]) -> None:
    """Show the first trace of a session, and put all of them into the recent runs.

    The side bar is set to it where its model comes with skipviz: a file names no folder here.

    Parameters
    ----------
    file
        The id of the upload.
    traces
        What is in it.
    """
    from skipviz.app.frame.inputs import fill_in  # with what reads models

    for saved in reversed(traces):  # the first comes last, and so to the front
        request = request_of(saved.trace, stored=saved.digest)
        jobs().keep(request, saved.trace)
        recent_runs().add(this_visitor(), request)
        if saved.token is not None:
            on_canvas(request).ask(saved.token, saved.site)
    state().session = (file, [])
    show_request(request)
    if request.model in (*sample_folders(), BACKBONE):
        fill_in(request)
