"""What a report is made of: an answer, its figures, its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
import polars as pl


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of a report.

    Attributes
    ----------
    figure
        The figure.
    seen
        What is to be seen in it, for those who do not see it.
    """

    figure: go.Figure
    seen: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A table of a report, of which the report shows the first rows.

    Attributes
    ----------
    name
        Of its file in the ZIP, without the ending.
    title
        What it holds.
    frame
        All rows.
    shown
        The rows of which the first are shown, where they are others, such as sorted ones.
    """

    name: str
    title: str
    frame: pl.DataFrame
    shown: pl.DataFrame | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Section:
    """A part of a report: the answer first, then figures, tables, and the caveat.

    Attributes
    ----------
    name
        In the page's addresses, as ``audit``.
    title
        The question.
    answer
        Paragraphs, where two asterisks mark what is strong and backquotes what is code.
    drawings, tables
        In order.
    caveat
        A paragraph in small print.
    """

    name: str
    title: str
    answer: Sequence[str]
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = field(default=())
    caveat: str = ""
