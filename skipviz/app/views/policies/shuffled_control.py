"""Whether it matters which tokens skip: the same decisions given to others, two ways."""

from __future__ import annotations

import threading

import polars as pl
import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.costs import Effort
from skipviz.app.jobs import SEED, Experiment, Request
from skipviz.evaluation.shuffled import Shuffled, shuffle_decisions
from skipviz.models import SkipModel
from skipviz.progress import Progress
from skipviz.readings.glossary import GLOSSARY
from skipviz.readings.shuffled import shuffled_reading
from skipviz.traces import Trace


def show_shuffled(traced: Trace, request: Request) -> None:
    """Offer the two controls on the texts that a policy ran, and show what they cost."""
    if not traced.sites.height:
        return
    st.subheader("Does it matter which tokens skip?")
    effort = Effort(f"shuffled decisions {request.model}", len(traced))
    st.caption("The same decisions, given to other tokens of the same text.")
    found = tried(
        "shuffled",
        "Shuffle the decisions",
        request,
        lambda: jobs().experiment(request, "shuffled decisions", _run(request)),
        effort=effort,
    )
    if found is None:
        return
    costs = (found.by_site_cost, found.by_token_cost)
    st.markdown(plain(shuffled_reading(*((c.mean, c.low, c.high) for c in costs))))
    table = pl.DataFrame(
        {
            "nats per token": ["loss", "minus own"],
            "own": [str(found.own), ""],
            "by_site": [str(found.by_site), str(found.by_site_cost)],
            "by_token": [str(found.by_token), str(found.by_token_cost)],
        }
    )
    st.dataframe(
        table,
        column_config={
            "own": "The policy's own decisions",
            "by_site": st.column_config.TextColumn(
                "Shuffled site by site", help=GLOSSARY["shuffled site by site"]
            ),
            "by_token": st.column_config.TextColumn(
                "Shuffled token by token, whole rows", help=GLOSSARY["shuffled token by token"]
            ),
        },
        hide_index=True,
        width="stretch",
    )


def _run(request: Request) -> Experiment[Shuffled]:
    def run(model: SkipModel, progress: Progress, stop: threading.Event) -> Shuffled:
        return shuffle_decisions(model, request.documents, seed=SEED, progress=progress, stop=stop)

    return run
