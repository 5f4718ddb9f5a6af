"""Buttons that download the report of a trace, and all its tables."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import streamlit as st

from skipviz.traces import Trace


def report_buttons(trace: Trace) -> None:
    """Offer the report of a trace and the ZIP of its tables; both are made when they are asked for.

    Parameters
    ----------
    trace
        A trace of at least one token.
    """
    left, right, _ = st.columns(3)
    left.download_button(
        "Report (HTML)",
        lambda: _made(trace, "report.html"),
        file_name="skipviz-report.html",
        mime="text/html",
        on_click="ignore",
        width="stretch",
        key="report",
        help="One file that opens from disk: text and map to click on, figures and tables.",
    )
    right.download_button(
        "All tables (ZIP)",
        lambda: _made(trace, "tables.zip"),
        file_name="skipviz-tables.zip",
        mime="application/zip",
        on_click="ignore",
        width="stretch",
        key="tables",
    )


def _made(trace: Trace, name: str) -> bytes:
    from skipviz.reports.reporting import report  # which brings torch

    with TemporaryDirectory() as folder:
        report(trace, Path(folder) / "report.html", zip=Path(folder) / "tables.zip")
        return (Path(folder) / name).read_bytes()
