"""The characters of tokens, each once: tokens that share characters repeat them."""

from __future__ import annotations

import polars as pl

from skipviz.traces import Trace


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


def text_around(trace: Trace, token: int, *, tokens: int) -> tuple[str, str]:
    """Return the characters just before and just after those of a token, in the same text.

    Parameters
    ----------
    trace
        The trace.
    token
        Which of its tokens.
    tokens
        How many to take the characters of on each side; fewer at an end of the text.
    """
    sequence, start, end = trace.tokens.select("sequence", "char_start", "char_end").row(token)
    before = trace.tokens[max(0, token - tokens) : token].filter(sequence=sequence)
    after = trace.tokens[token + 1 : token + 1 + tokens].filter(sequence=sequence)
    return _characters(before, until=start), _characters(after, since=end)


def _characters(tokens: pl.DataFrame, *, since: int | None = None, until: int | None = None) -> str:
    """Return the characters of tokens, each once, from one place in the text up to another."""
    pieces, reached = [], since
    for text, start, end in tokens.select("text", "char_start", "char_end").iter_rows():
        if start is None:
            pieces.append(text)
            continue
        piece = text[max(0, (reached or start) - start) :]
        over = 0 if until is None else max(0, end - until)
        pieces.append(piece[: len(piece) - over] if over else piece)
        reached = max(end, reached or 0)
    return "".join(pieces)
