"""Words of a text as a model ran them, so that two surfaces of it can be held side by side.

The same word may be one token in one text and three in another. A word is therefore what its
tokens come to: the share of them that executed each site, their layers used on average, and what
all of them cost to predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError
from skipviz.traces import Trace

Spans = Sequence[tuple[int, int]]
"""First character of each word of a text and the one after its last, in order."""


@dataclass(frozen=True, eq=False)
class Words:
    """The words of one text.

    Attributes
    ----------
    tokens
        How many tokens each has, [words].
    rates
        Share of its tokens that executed each site, 0 to 1, [words, sites]; NaN without tokens.
    layers_used
        Mean over its tokens, in layers, [words].
    loss
        What its tokens cost to predict, summed, in nats, [words]; NaN where one of them stands
        first in the text.
    """

    tokens: Ints
    rates: Floats
    layers_used: Floats
    loss: Floats

    @classmethod
    def of(cls, trace: Trace, sequence: int, spans: Spans) -> Words:
        """Put the tokens of one text of a trace together by word.

        A token belongs to the first word that ends behind where the token begins: white space goes
        with the word that follows, as tokenizers have it, the last white space with the last.

        Parameters
        ----------
        trace
            Of a text whose characters are known.
        sequence
            Which text of it.
        spans
            Its words.

        Raises
        ------
        ValueError
            If there are no words, or the trace has no such text.
        """
        if not spans:
            raise InputError("The text has no words; give one with at least one.")
        rows = (trace.tokens["sequence"] == sequence).to_numpy()
        if not rows.any():
            raise InputError(f"The trace has no text {sequence}.")
        tokens = trace.tokens.filter(rows)
        ends = np.array([end for _, end in spans], dtype=np.int64)
        word = np.searchsorted(ends, tokens["char_start"].to_numpy(), side="right")
        word = np.minimum(word, len(spans) - 1)
        executed = (trace.matrix("exec_count")[rows] > 0).astype(np.float64)
        used = tokens["layers_used"].to_numpy().astype(np.float64)
        surprisal = tokens["surprisal"].fill_null(np.nan).to_numpy().astype(np.float64)
        sums = np.zeros((len(spans), executed.shape[1] + 2))
        np.add.at(sums, word, np.column_stack([executed, used, surprisal]))
        count = np.bincount(word, minlength=len(spans))
        sums[count == 0] = np.nan
        means = sums / np.maximum(count, 1)[:, None]
        return cls(count, means[:, :-2], means[:, -2], sums[:, -1])


def word_changes(before: Words, after: Words, pairs: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """Hold aligned words of two texts against each other.

    Parameters
    ----------
    before, after
        Words of the two texts, run by the same model.
    pairs
        Which word of the first belongs to which of the second.

    Returns
    -------
    pl.DataFrame
        One row per pair: ``word``, its place in the first text; ``tokens_before``,
        ``tokens_after``; ``moved``, 0 to 1, the mean over sites of how far the shares of the
        word's tokens that executed lie apart, which for words of one token is the share of
        decisions that differ; ``apart``, the same against the word of the pair that stands
        half of all pairs further on (from the first again after the last), which says how far
        two words lie apart that have as little to do with each other as the texts allow:
        neighbours are alike; ``layers_before``, ``layers_after``, mean layers used of
        its tokens; ``loss_before``, ``loss_after``, nats per word. Null where it is not known.
    """
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    other = np.roll(second, -(len(second) // 2))
    figures = {
        "moved": np.abs(before.rates[first] - after.rates[second]).mean(axis=1),
        "apart": np.abs(before.rates[first] - after.rates[other]).mean(axis=1)
        if len(first) > 1
        else np.full(len(first), np.nan),
        "layers_before": before.layers_used[first],
        "layers_after": after.layers_used[second],
        "loss_before": before.loss[first],
        "loss_after": after.loss[second],
    }
    return pl.DataFrame(
        {
            "word": first,
            "tokens_before": before.tokens[first],
            "tokens_after": after.tokens[second],
            **{name: pl.Series(values).fill_nan(None) for name, values in figures.items()},
        }
    )
