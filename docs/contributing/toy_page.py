"""A page of its own: the longest skipped runs of the text that was traced last."""

from __future__ import annotations

import streamlit as st
from toy_analysis import skip_runs
from toy_figure import skip_run_bars
from toy_reading import skip_run_reading

from skipviz.app.components.downloads import csv_buttons
from skipviz.app.one_text import traced_text


def page() -> None:
    """Show the figure, the sentence and the table."""
    st.header("Which layers are skipped for long?")
    known = traced_text(gates="no layer is skipped")
    if known is None:
        return
    _, trace = known
    runs = skip_runs(trace)
    st.plotly_chart(skip_run_bars(trace, runs))
    st.markdown(skip_run_reading(runs))
    csv_buttons({"Runs": ("skip_runs", runs)})
