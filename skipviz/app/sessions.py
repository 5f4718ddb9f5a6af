"""Which session of Streamlit a page is drawn for, and which are still there."""

from __future__ import annotations

from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx


def this_session() -> str:
    """Return the id of the session whose page is being drawn."""
    context = get_script_run_ctx()
    return "" if context is None else context.session_id


def is_open(session: str) -> bool:
    """Say whether a session's page is connected: not closed, not reloaded.

    Streamlit ends a session's connection at once, and keeps its memory for two minutes more in
    case the same page connects again. Outside a server, as in tests of a page, all are.
    """
    return not runtime.exists() or bool(runtime.get_instance().is_active_session(session))
