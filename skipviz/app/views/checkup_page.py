"""The page of the check-up: whether what is recorded is true, and whether the model skips."""

from __future__ import annotations

import json
from collections import Counter
from typing import Literal

import streamlit as st

from skipviz.analysis.findings import SIGNS, CheckUp, Finding
from skipviz.app.components.heading import heading
from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import jobs, tried
from skipviz.app.costs import Effort
from skipviz.app.one_text import text_caption, traced_text
from skipviz.experiments.checkup.running import CHECKED_TOKENS, check
from skipviz.plots.checkup_page import checkup_html

Colour = Literal["red", "orange", "green", "gray"]
COLOURS: dict[str, Colour] = {"issue": "red", "tip": "orange", "passed": "green"}
"""The colour of the badge of an outcome; the others are grey."""


def page() -> None:
    """Check the trace at once, and the model when asked."""
    heading("Can these figures be trusted?", "site", "scope", "polarity", "gate score", "threshold")
    st.markdown(
        "The model runs the beginning of the text many times: recorded and not, forced, from a "
        "cache, in a batch, with other seeds, with later tokens exchanged. Each line says what was "
        "found and what it means for reading the figures."
    )
    known = traced_text()
    if known is None:
        return
    request, trace = known
    sequence = trace.tokens["sequence"]  # the first text is run
    text_caption(
        trace,
        f"of which {min(int((sequence == sequence[0]).sum()), CHECKED_TOKENS)} are run",
    )
    found = tried(
        "checkup",
        "Check this model",
        request,
        lambda: jobs().experiment(
            request,
            "checkup",
            lambda model, progress, stop: check(
                model, request.documents[0], progress=progress, stop=stop
            ),
        ),
        effort=Effort(f"checkup {request.model}", CHECKED_TOKENS),
    )
    if found is None:
        st.subheader("What the trace alone shows")
        found = check(trace)
    _show(found)


def _show(found: CheckUp) -> None:
    counts = Counter(each.outcome for each in found.findings)
    issues, tips = counts["issue"], counts["tip"]
    st.markdown(
        f"**{issues or 'No'} issue{'' if issues == 1 else 's'}**, {tips} "
        f"tip{'' if tips == 1 else 's'}, {counts['passed']} passed of {len(found.findings)} checks."
    )
    for each in found.ordered:
        _line(each)
    left, right, _ = st.columns(3)
    left.download_button(
        "Findings (JSON)",
        json.dumps(found.to_dict(), indent=1),
        file_name="checkup.json",
        mime="application/json",
        on_click="ignore",
        width="stretch",
    )
    right.download_button(
        "Findings (HTML)",
        checkup_html(found),
        file_name="checkup.html",
        mime="text/html",
        on_click="ignore",
        width="stretch",
    )


def _line(finding: Finding) -> None:
    label = f"{SIGNS.get(finding.outcome, '')} {finding.outcome}".strip()
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(label, color=COLOURS.get(finding.outcome, "gray"))
            st.markdown(f"**{plain(finding.said)}**", width="content")
            st.caption(finding.code, width="content")
        figure = f"**{plain(finding.figure)}.** " if finding.figure else ""
        st.markdown(figure + plain(finding.evidence))
        if finding.advice:
            st.markdown(f"{plain(finding.matters)} {plain(finding.advice)}")
