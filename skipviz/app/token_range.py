"""The range of tokens chosen on the canvas: what pages show is of these alone, and says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import streamlit as st

from skipviz.analysis.robustness.two_corpora import select_tokens
from skipviz.app.jobs import Request
from skipviz.app.state import on_canvas
from skipviz.traces import Trace


@dataclass(frozen=True)
class TokenRange:
    """The tokens that a page is about: those of a range, or all.

    Attributes
    ----------
    ends
        The first and the last token; None: all tokens.
    """

    ends: tuple[int, int] | None = None

    def rows(self, table: pl.DataFrame, *, column: str = "token") -> pl.DataFrame:
        """Return the rows of a table that are of these tokens."""
        return table if self.ends is None else table.filter(pl.col(column).is_between(*self.ends))

    def part(self, trace: Trace) -> Trace:
        """Return the trace of these tokens, each with the context that it had."""
        if self.ends is None:
            return trace
        tokens = np.arange(len(trace))
        return select_tokens(trace, (tokens >= self.ends[0]) & (tokens <= self.ends[1]))

    @property
    def variable(self) -> str:
        """What a notebook's cell calls the trace of these tokens."""
        return "trace" if self.ends is None else "part"

    @property
    def imports(self) -> list[str]:
        """What a cell imports to make that trace of the whole one."""
        where = "from skipviz.analysis.robustness.two_corpora import select_tokens"
        return [] if self.ends is None else [where]

    @property
    def lines(self) -> list[str]:
        """The lines of a cell that make that trace of the whole one, where it is another."""
        if self.ends is None:
            return []
        return [
            f'kept = trace.tokens["token"].is_between{self.ends}',
            f"{self.variable} = select_tokens(trace, kept.to_numpy())",
        ]

    def lines_of_rows(self, table: str) -> list[str]:
        """Return the lines of a cell that leave a table the rows of these tokens."""
        if self.ends is None:
            return []
        return [f'{table} = {table}.filter({table}["token"].is_between{self.ends})']

    def __str__(self) -> str:
        return "" if self.ends is None else f"tokens {self.ends[0]} to {self.ends[1]}"


def chosen_range(request: Request, trace: Trace, *, but: str = "") -> TokenRange:
    """Return which tokens a page is to be about; where not all are, say so and offer them all.

    Parameters
    ----------
    request, trace
        As pages have them.
    but
        A sentence on what is over the whole text all the same.
    """
    chosen = TokenRange(on_canvas(request).selection.range)
    _say(request, trace, chosen, f"{_named(chosen)} of {len(trace):,} only. {but}")
    return chosen


def say_whole_text(request: Request, trace: Trace, *, why: str) -> None:
    """Say, where a range is chosen, that a page is over the whole text all the same, and why."""
    chosen = TokenRange(on_canvas(request).selection.range)
    are = "are" if _named(chosen).startswith("Tokens") else "is"
    words = f"{_named(chosen)} {are} chosen; this is over the whole text: {why}"
    _say(request, trace, chosen, words)


def _named(chosen: TokenRange) -> str:
    first, last = chosen.ends or (0, 0)
    return f"Token {first:,}" if first == last else f"Tokens {first:,} to {last:,}"


def _say(request: Request, trace: Trace, chosen: TokenRange, words: str) -> None:
    if chosen.ends is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="token range"):
        st.info(words.strip())
        st.button(
            f"All {len(trace):,} tokens", key="all tokens", on_click=on_canvas(request).clear_range
        )
