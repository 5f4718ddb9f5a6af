"""A column of the user's own, with which the canvas can be painted."""

from __future__ import annotations

import hashlib
from functools import partial

import polars as pl
import streamlit as st

from skipviz.app.components.plain_text import plain
from skipviz.app.components.run_button import explain
from skipviz.app.jobs import Request
from skipviz.app.state import on_canvas
from skipviz.errors import SkipvizError
from skipviz.plots.lenses.own import own_lens
from skipviz.plots.style.palette import CATEGORY_COLOURS
from skipviz.text.own_columns import in_token_order, read_own_table, showable_columns
from skipviz.traces import Trace

_OWN = "own "
"""What lenses of a user's own are made from begins with this."""


def offer_own_column(request: Request, trace: Trace) -> None:
    """Take a file with one row per token, and let the canvas be painted with a column of it."""
    with st.expander("Colour the text by a column of your own"):
        st.caption(
            "A CSV or Parquet file with one row per token: in the order of the text, or with a "
            "column “token”, the index of the token from 0. Numbers become a scale, text becomes "
            "classes. Among numbers, a cell that is empty or says NA or NaN has no value."
        )
        upload = st.file_uploader(
            "Your columns", type=["csv", "parquet"], key=f"own columns {request.key}",
            label_visibility="collapsed", on_change=partial(_keep_only, request, ""),
        )  # fmt: skip
        if upload is not None:
            content = upload.getvalue()
            try:
                read = read_own_table(content, name=upload.name)
                table = in_token_order(read, tokens=len(trace), name=upload.name)
            except SkipvizError as error:
                explain(error)
                return
            _choose(request, table, digest=hashlib.sha256(content).hexdigest(), name=upload.name)


def _choose(request: Request, table: pl.DataFrame, *, digest: str, name: str) -> None:
    columns = showable_columns(table)
    if not columns:
        st.info(plain(f"{name} has no column of numbers or text. Add one."))
        return
    column = st.selectbox("Column", columns, key=f"own column {request.key} {digest[:16]}")
    values = table[str(column)]
    st.caption(plain(_said(values)))
    source = f"{_OWN}{digest} {column}"
    _keep_only(request, source)
    on_canvas(request).paint(source, lambda: [own_lens(values)])


def _keep_only(request: Request, source: str) -> None:
    """Take lenses of other columns and files off the canvas of a text."""
    on = on_canvas(request)
    on.lenses = {
        name: (known, lens)
        for name, (known, lens) in on.lenses.items()
        if known == source or not known.startswith(_OWN)
    }


def _said(values: pl.Series) -> str:
    """Say how many values there are, and which have a colour of their own."""
    known = len(values) - values.null_count()
    if values.dtype.is_numeric():
        known = int(values.cast(pl.Float64).is_finite().sum())
    said = f"{known:,} of {len(values):,} tokens have a value."
    if values.dtype.is_integer() and (values.cast(pl.Float64).cast(pl.Int128) != values).any():
        said += " Whole numbers of more than 15 digits are rounded."
    kinds = values.drop_nulls().n_unique()
    if values.dtype.is_numeric() or kinds <= len(CATEGORY_COLOURS):
        return said
    return (
        f"{said} There are {kinds:,} values; the {len(CATEGORY_COLOURS)} most frequent have a "
        "colour each, and all others one."
    )
