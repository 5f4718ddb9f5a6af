"""The page of skip paths: a text in, which layers each token used out."""

from __future__ import annotations

import streamlit as st

from skipviz.app.components.heading import heading
from skipviz.app.components.run_button import PATHS, follow, jobs, outcome
from skipviz.app.inputs import choose
from skipviz.app.jobs import kept_result
from skipviz.app.state import state
from skipviz.app.views.paths_result import show


def page() -> None:
    """Show the input, the run under way, and what came out."""
    request = choose()
    if request is not None:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
    heading(
        "Which layers did each token use?",
        "layers used", "budget", "FLOPs", "loss", "surprisal", "gate score", "threshold", "site",
        "unit", "skip path",
    )  # fmt: skip
    run = state().runs.get(PATHS)
    if run is None:
        _welcome()
        return
    outcome(PATHS, asked=run.asked)
    shown = None if run.under_way else run.finished
    traced = None if shown is None else kept_result(shown.job)
    if shown is None or traced is None:
        return
    if shown is not run:
        st.caption("Below is what was traced before.")
    show(traced, shown.request, key=str(shown.asked))


def _welcome() -> None:
    st.markdown(
        "Some transformers decide for each token which layers to run. Enter a text on the left "
        "and press **Trace the text**: you get it back coloured by the layers that each token "
        "used, with a map of every decision and the gate scores behind it."
    )
    st.markdown(
        "- **Click a token** (or use the arrow keys) to see its path through the layers and the "
        "most likely next tokens.\n"
        "- **Download** every gate decision as CSV or Parquet.\n"
        "- Nothing leaves this machine."
    )
