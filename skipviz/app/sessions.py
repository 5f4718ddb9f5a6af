"""Which session of Streamlit a page is drawn for, and which are still there."""

from __future__ import annotations

from contextlib import suppress
from itertools import cycle

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx


def this_session() -> str:
    """Return the id of the session whose page is being drawn."""
    context = get_script_run_ctx()
    return "" if context is None else context.session_id


def this_visitor() -> str:
    """Return what a browser is known by, over its tabs and after a page was loaded again.

    It is the cookie by which Streamlit tells this browser's uploads from those of other sites. At
    each loading the same token stands in it under another mask, which comes before it.
    """
    match st.context.cookies.get("_streamlit_xsrf", "").split("|"):
        case ["2", mask, masked, _]:
            with suppress(ValueError):  # it is not hexadecimal: another program's
                pairs = zip(bytes.fromhex(masked), cycle(bytes.fromhex(mask)), strict=False)
                return bytes(one ^ other for one, other in pairs).hex() or this_session()
    return this_session()


def is_served() -> bool:
    """Say whether pages are drawn by a server; tests of a page put something else in its place."""
    return runtime.exists() and type(runtime.get_instance()) is runtime.Runtime


def is_open(session: str) -> bool:
    """Say whether a session's page is connected: not closed, not reloaded.

    Streamlit ends a session's connection at once, and keeps its memory for two minutes more in
    case the same page connects again. Outside a server, as in tests of a page, all are.
    """
    return not runtime.exists() or bool(runtime.get_instance().is_active_session(session))
