"""The characters of tokens, each once: tokens that share characters repeat them."""

from __future__ import annotations

import polars as pl


def repeated_characters() -> pl.Expr:
    """Return how many of a token's first characters the tokens before it in its span have.

    Of the columns ``char_start``, ``char_end`` and ``span`` of ``Trace.tokens``, in reading order;
    0 where places in the text are not known.
    """
    reached = pl.col("char_end").cum_max().shift(1).over("span")
    return (reached - pl.col("char_start")).clip(lower_bound=0).fill_null(0)


def new_characters() -> pl.Expr:
    """Return the characters that a token adds to those before it in its span."""
    return pl.col("text").str.slice(repeated_characters())
