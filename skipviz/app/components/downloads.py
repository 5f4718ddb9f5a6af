"""Tables as CSV files, and the buttons that download them."""

from __future__ import annotations

import json
from functools import partial

import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula."""
TEXTS = frozenset(
    {"after", "answer", "before", "document", "file", "next", "one", "other", "piece", "prompt",
     "source", "text", "word", "word_text"}
)  # fmt: skip
"""Columns that hold what a user wrote, or the name of a file of theirs."""
PER_ROW = 4
"""Buttons side by side."""


def csv_of(table: pl.DataFrame) -> str:
    """Return a table as CSV, texts in JSON's notation: no spreadsheet takes them for formulas.

    A column of other strings is written so too where one of them would be taken for a formula, as
    a file's name in a longer label.
    """
    texts = [
        name
        for name, kind in table.schema.items()
        if kind == pl.String and (name in TEXTS or _formulas(table[name]))
    ]
    return table.with_columns(
        pl.Series(name, [_json(text) for text in table[name]]) for name in texts
    ).write_csv()


def _json(text: str | None) -> str | None:
    return None if text is None else json.dumps(text, ensure_ascii=False)


def _formulas(column: pl.Series) -> bool:
    return any(text is not None and text.startswith(FORMULA) for text in column)


def _row(buttons: int) -> list[DeltaGenerator]:
    return st.columns(min(buttons, PER_ROW))


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
            partial(csv_of, table),
            file_name=f"{name}.csv",
            mime="text/csv",
            on_click="ignore",
            width="stretch",
            key=f"csv {name}",
        )
