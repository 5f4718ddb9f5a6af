"""A description of gates in the side bar, for a folder whose gates skipviz does not know."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.run_button import PATHS, follow, jobs, outcome
from skipviz.app.jobs import Request
from skipviz.app.state import set_widget, state, widget
from skipviz.errors import UnknownModelError

GATES_OF = "gates of "
"""What the keys of descriptions begin with."""
PROPOSAL = "proposed gates"
"""The run that looks for gates."""


def choose_gates(model: str) -> str | None:
    """Offer to describe a model's gates, if loading it has said that they are not known.

    Parameters
    ----------
    model
        Sample model or folder.

    Returns
    -------
    str or None
        The description in YAML; None where there is none.
    """
    key = f"{GATES_OF}{model}"
    if not _is_unknown(model) and not widget(key):
        return None
    st.caption("skipviz does not know how this model skips. Describe its gates.")
    request = Request(model=model, documents=())
    if st.button("Propose a description", key="propose gates"):
        follow(PROPOSAL, lambda: jobs().proposal(model), asked=request.key, request=request)
    found = outcome(PROPOSAL, asked=request.key)
    if found is not None:
        set_widget(key, found)
        del state().runs[PROPOSAL]  # what is typed from now on stays
    text = st.text_area(
        "Gates (YAML)",
        key=key,
        height=220,
        placeholder="module: model.layers.{layer}.router",
        help="Where the gates are, what they emit, and when a unit runs: the fields of a GateSpec. "
        "A proposal is a guess; the page “Check-up” says whether it is true.",
    )
    return text if text.strip() else None


def _is_unknown(model: str) -> bool:
    run = state().runs.get(PATHS)
    return (
        run is not None
        and run.request.model == model
        and isinstance(run.problem, UnknownModelError)
    )
