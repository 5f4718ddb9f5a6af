"""Downloads: tables as CSV, and traces."""

from __future__ import annotations

import io

import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from skipviz import plots
from skipviz.plots.lenses.traced import traced_lenses
from skipviz.tables import csv_text
from skipviz.traces import Trace

PER_ROW = 4
"""Buttons side by side."""


def _row(buttons: int) -> list[DeltaGenerator]:
    return st.columns(max(3, min(buttons, PER_ROW)))


def csv_buttons(tables: dict[str, tuple[str, pl.DataFrame]]) -> None:
    """Offer tables as CSV, side by side.

    Parameters
    ----------
    tables
        Name of the file, without its ending, and the table, by the words on the button.
    """
    places = [column for _ in range(0, len(tables), PER_ROW) for column in _row(len(tables))]
    for column, (label, (name, table)) in zip(places, tables.items(), strict=False):
        column.download_button(
            f"{label} (CSV)",
            csv_text(table),  # a click while the page runs would lose what is made on asking
            file_name=f"{name}.csv",
            mime="text/csv",
            on_click="ignore",
            width="stretch",
            key=f"csv {name}",
        )


def trace_csv(trace: Trace) -> bytes:
    """Return what a trace holds as CSV, a row per decision."""
    buffer = io.BytesIO()
    trace.write_csv(buffer)
    return buffer.getvalue()


def trace_file(trace: Trace) -> bytes:
    """Return a trace as the file that ``Trace.load`` reads."""
    buffer = io.BytesIO()
    trace.save(buffer)
    return buffer.getvalue()


def trace_figure(trace: Trace, tokens: int) -> bytes:
    """Return the text and the map of a trace's first tokens as one page of HTML.

    The text is coloured on the scale that the canvas opens with.
    """
    layers_used, *_ = traced_lenses(trace)
    text = plots.token_html(trace, ends=layers_used.stretched(), limit=tokens)
    drawn = plots.layer_map(trace, count=tokens).to_html(full_html=False, include_plotlyjs=True)
    return f"<!doctype html><meta charset='utf-8'>{text}{drawn}".encode()
