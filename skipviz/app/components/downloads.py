"""Buttons that download tables as CSV."""

from __future__ import annotations

import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from skipviz.tables import csv_text

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
