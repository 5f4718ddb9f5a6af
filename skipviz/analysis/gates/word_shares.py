"""Shares of tokens, put together by what is read as one: shared characters, and words."""

from __future__ import annotations

import polars as pl

from skipviz.analysis.tokens.characters import new_characters
from skipviz.analysis.tokens.classes import token_words
from skipviz.traces import Trace


def shares_by_word(trace: Trace, shares: pl.DataFrame, *, words: bool) -> pl.DataFrame:
    """Return the text in pieces, each with the sum of its tokens' shares.

    Parameters
    ----------
    trace
        The trace of one text.
    shares
        One row per token that has one: ``token`` and ``attribution``.
    words
        Whether the tokens of a word are put together; else only those that share characters, such
        as the parts of an emoji.

    Returns
    -------
    pl.DataFrame
        One row a piece, in reading order: ``piece``, from 0; ``first`` and ``last`` token;
        ``text``, with every character of the trace once; ``attribution``, the sum, null where no
        token has a share.
    """
    tokens = (
        trace.tokens.select("token", "span", text=new_characters())
        .join(token_words(trace).select("token", "word"), on="token", how="left")
        .join(shares.select("token", "attribution"), on="token", how="left")
        .sort("token")
    )
    # Words and spans are counted apart; a span outside words goes below 0.
    span = -1 - pl.col("span").cast(pl.Int64)
    whole = pl.coalesce("word", span) if words else span
    return (
        tokens.with_columns(piece=whole.rle_id().cast(pl.Int64))
        .group_by("piece", maintain_order=True)
        .agg(
            first=pl.col("token").first(),
            last=pl.col("token").last(),
            text=pl.col("text").str.join(""),
            attribution=pl.when(pl.col("attribution").is_not_null().any()).then(
                pl.col("attribution").sum()
            ),
        )
    )
