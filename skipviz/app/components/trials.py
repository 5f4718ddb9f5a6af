"""What a page tries at the press of a button, and texts that are shown as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st

from skipviz.app.components.run_button import explain, follow, wait
from skipviz.app.jobs import Job, Request

Result = TypeVar("Result")


def tried(
    key: str,
    label: str,
    request: Request,
    start: Callable[[], Job[Result]],
    *,
    settings: str = "",
) -> Result | None:
    """Show a button and the run it starts; return what came out, once it has.

    Parameters
    ----------
    key
        Of the button.
    label
        On it.
    request
        What was traced; results of another request are not shown.
    start
        Starts the run, or finds it.
    settings
        Whatever else the result depends on.
    """
    if st.button(label, type="primary", key=f"try {key}"):
        follow(f"job of {key}", start)
        st.session_state[f"asked of {key}"] = (request.key, settings)
    job: Job[Any] | None = st.session_state.get(f"job of {key}")
    if job is None:
        return None
    asked = st.session_state[f"asked of {key}"] == (request.key, settings)
    if not job.future.done():
        if not asked:
            st.caption("What was asked for before is still under way.")
        wait(job)
        return None
    if not asked:
        return None
    if (error := job.problem) is not None:
        explain(error)
        return None
    result: Result = job.future.result()
    return result
