"""Tables as CSV that a spreadsheet can open: no cell is read as a formula, and no text is lost."""

from __future__ import annotations

import json
import re

import polars as pl

TEXTS = frozenset(
    {"after", "answer", "before", "document", "file", "hit", "left", "next", "one", "other",
     "piece", "prompt", "right", "source", "text", "word", "word_text"}
)  # fmt: skip
"""Columns that hold what a user wrote, or the name of a file of theirs."""
FORMULA = r"\A[=+\-@\t\r]"
"""What a spreadsheet takes for the beginning of a formula."""


def csv_text(frame: pl.DataFrame) -> str:
    """Return a table as CSV, texts in JSON's notation; see ``csv_safe``."""
    return csv_safe(frame).write_csv()


def csv_bytes(frame: pl.DataFrame, *, excel: bool = False) -> bytes:
    """Return a table as CSV in UTF-8; see ``csv_safe``.

    Parameters
    ----------
    frame
        The table.
    excel
        Whether it begins with a byte order mark: without one Excel takes letters beyond ASCII for
        others.
    """
    return csv_text(frame).encode("utf-8-sig" if excel else "utf-8")


def without_nesting(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose lists are written as JSON, since a cell of CSV holds one value."""
    return frame.with_columns(
        pl.Series(name, [_in_json(each) for each in frame[name].to_list()], dtype=pl.String)
        for name, kind in frame.schema.items()
        if kind.is_nested()
    )


def csv_safe(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table with its texts as JSON strings.

    A JSON string starts with a quotation mark, so no spreadsheet takes it for a formula, and
    control characters survive. Columns of users' texts are always written so (``TEXTS``); a column
    of other strings only where one of them would be taken for a formula, such as a file's name in
    a longer label. So is the name of a column, which may be a user's.
    """
    return frame.with_columns(
        _as_json(frame[name])
        for name, kind in frame.schema.items()
        if kind == pl.String and (name in TEXTS or frame[name].str.contains(FORMULA).any())
    ).rename(lambda name: json.dumps(name, ensure_ascii=False) if re.match(FORMULA, name) else name)


def _in_json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _as_json(texts: pl.Series) -> pl.Series:
    values = texts.drop_nulls().unique(maintain_order=True)
    written = pl.Series(
        [json.dumps(value, ensure_ascii=False) for value in values], dtype=pl.String
    )
    return texts.replace_strict(values, written, return_dtype=pl.String)
