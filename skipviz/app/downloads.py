"""Tables as files to keep."""

from __future__ import annotations

import json

import polars as pl

TEXTS = frozenset(
    {"after", "answer", "before", "document", "file", "next", "one", "other", "piece", "prompt",
     "source", "text", "word", "word_text"}
)  # fmt: skip
"""Columns that hold what a user wrote, or the name of a file of theirs."""


def csv_of(table: pl.DataFrame) -> str:
    """Return a table as CSV, texts in JSON's notation: no spreadsheet takes them for formulas."""
    texts = [name for name, kind in table.schema.items() if name in TEXTS and kind == pl.String]
    return table.with_columns(
        pl.Series(name, [json.dumps(text, ensure_ascii=False) for text in table[name]])
        for name in texts
    ).write_csv()
