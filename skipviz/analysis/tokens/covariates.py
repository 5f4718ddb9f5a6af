"""What else there is to know of a token that a gate's score may only be repeating."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.tokens.classes import token_words
from skipviz.arrays import Floats
from skipviz.errors import MissingExtraError
from skipviz.traces import Trace

COVARIATES = {
    "position": "position",
    "log_frequency": "word frequency",
    "surprisal": "surprisal",
    "length": "length",
}
"""What is controlled for, and its name in words."""


def covariates(trace: Trace) -> pl.DataFrame:
    """Return what to control for, token by token.

    Parameters
    ----------
    trace
        Any trace.

    Returns
    -------
    pl.DataFrame
        One row per token: ``token``; ``position`` in its text, from 0; ``log_frequency`` of its
        word in English, the decimal logarithm of occurrences per billion words (Speer,
        "wordfreq", 2022), 0 for a word that is not known, null outside words and in texts to which
        English lists do not apply (``word_lists``); ``surprisal`` in
        nats, null at the start of a text; ``length`` in characters.

    Raises
    ------
    ImportError
        If wordfreq is not installed; says how to install it.
    """
    frequency = _wordfreq().zipf_frequency
    words = token_words(trace).select(pl.when("english").then("word_text"))["word_text"]
    known = {word: float(frequency(word, "en")) for word in words.drop_nulls().unique()}
    return trace.tokens.select(
        "token",
        "position",
        log_frequency=pl.Series([known.get(word) for word in words], dtype=pl.Float64),
        surprisal=pl.col("surprisal").cast(pl.Float64),
        length=pl.col("text").str.len_chars().cast(pl.Int64),
    )


def controlled_for(table: pl.DataFrame) -> str:
    """Return in words what there is to control for: not what is unknown of every token.

    Parameters
    ----------
    table
        What ``covariates`` returned.
    """
    names = [said for name, said in COVARIATES.items() if table[name].count()]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def design_matrix(table: pl.DataFrame) -> Floats:
    """Return the covariates as numbers, of shape [tokens, figures].

    Tokens without a frequency take the mean one, and a figure of its own says that they do;
    surprisal is NaN at the start of a text.

    Parameters
    ----------
    table
        What ``covariates`` returned.
    """
    outside = table["log_frequency"].is_null()
    filled = table.select(*COVARIATES).with_columns(
        pl.col("log_frequency").fill_null(pl.col("log_frequency").mean()).fill_null(0.0)
    )
    columns = filled.with_columns(outside.cast(pl.Float64).alias("outside"))
    found: Floats = columns.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return found


def _wordfreq() -> Any:
    try:
        import wordfreq
    except ImportError as error:
        raise MissingExtraError(
            "Controlling for word frequency needs wordfreq, which is not installed: pip install "
            "'skipviz[correlation]'."
        ) from error
    return wordfreq
