"""Blocks of neighbouring tokens: what stays together wherever chance is imitated.

Tokens of a text are not independent: what holds for one tends to hold for the next. Permuting or
drawing them one by one destroys that and finds significance in noise. Here whole blocks of
neighbours change places, or are left out (Kunsch, "The jackknife and the bootstrap for general
stationary observations", 1989).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skipviz.arrays import Floats, Ints

FOLDS = 5
"""Of documents, or of blocks of one, that a probe is tested on in turn."""
BLOCK_TOKENS = 32
"""Neighbouring tokens that stay together.

Measured by ``benchmarks/block_length.py`` on smollm2-gated and 18 held-out texts. Autocorrelation
from one token to the next is 0.10 for decisions, 0.06 for scores, 0.11 for losses and 0.36 for
layers used; two tokens on it is below 0.03 for all. The best block length (Politis and White, 2004)
is at most 26 for 95% of the series of decisions, scores and losses, and at most 30 for 75% of those
of layers used. Longer blocks than are needed cost some precision; shorter ones understate chance.
"""

MIN_TEXTS_AS_GROUPS = 10
"""Texts from which on whole texts are groups, as they differ as wholes."""


def block_of(place: Ints) -> Ints:
    """Return the block of each token from its place in the text."""
    return place // BLOCK_TOKENS


def blocks_in(tokens: int, block: int = BLOCK_TOKENS) -> int:
    """Return how many blocks so many tokens are, the last one perhaps shorter."""
    return -(-tokens // block)


def tokens_by_text(documents: Ints) -> list[Ints]:
    """Return the tokens of each text, in order of the texts' numbers."""
    ordered = np.argsort(documents, kind="stable")
    _, starts = np.unique(documents[ordered], return_index=True)
    return np.split(ordered, starts[1:])


def dependent_groups(documents: Ints) -> Ints:
    """Return groups of tokens such that tokens of different ones are independent, or nearly so.

    Parameters
    ----------
    documents
        The text of each token, in reading order within each, of shape [n].

    Returns
    -------
    ndarray
        The group of each token, of shape [n]: its text where there are ``MIN_TEXTS_AS_GROUPS``,
        else its block of ``BLOCK_TOKENS`` tokens of the text.
    """
    texts = tokens_by_text(documents)
    size = len(documents) if len(texts) >= MIN_TEXTS_AS_GROUPS else BLOCK_TOKENS
    groups, count = np.empty(len(documents), dtype=np.int64), 0
    for tokens in texts:
        groups[tokens] = count + np.arange(len(tokens)) // size
        count += blocks_in(len(tokens), size)
    return groups


def block_parts(texts: Sequence[Ints], *, block: int, most: int) -> Ints:
    """Return the part of each token, from 0: blocks of neighbours, or several blocks in a row.

    The blocks of a text are equally long.

    Parameters
    ----------
    texts
        The tokens of each text, in reading order.
    block
        Tokens in a block, at most; a shorter text is one.
    most
        Parts, at most.
    """
    part = np.empty(sum(map(len, texts)), dtype=np.int64)
    blocks = 0
    for tokens in texts:
        count = blocks_in(len(tokens), block)
        part[tokens] = blocks + np.arange(len(tokens)) * count // len(tokens)
        blocks += count
    return part * min(blocks, most) // blocks


def block_permutations(
    length: int,
    count: int,
    *,
    block: int,
    generator: np.random.Generator,
    documents: Ints | None = None,
) -> Ints:
    """Return orders in which blocks changed places, within texts, [count, length].

    A text is a ring cut anew each time, so that no token is always at the edge of its block.

    Parameters
    ----------
    length
        Tokens.
    count
        How many orders.
    block
        Neighbouring tokens that stay together; a shorter text is turned as a whole.
    generator
        Where chance comes from.
    documents
        The text of each token, [length]; None if it is one.
    """
    orders = np.empty((count, length), dtype=np.int64)
    texts = tokens_by_text(np.zeros(length, dtype=np.int64) if documents is None else documents)
    for row in orders:
        for text in texts:
            cut = int(generator.integers(len(text)))
            ring = np.concatenate([text[cut:], text[:cut]])
            starts = generator.permutation(np.arange(0, len(text), block))
            row[text] = np.concatenate([ring[start : start + block] for start in starts])
    return orders


def shuffled_columns(values: Floats, *, block: int, generator: np.random.Generator) -> Floats:
    """Return values whose columns know nothing of each other, of the same shape.

    In each column values change places among tokens, in blocks of neighbours of random lengths, so
    that what holds for a token still tends to hold for the next.

    Parameters
    ----------
    values
        In reading order, [tokens, columns].
    block
        Mean length of a block, in tokens; 1 shuffles token by token.
    generator
        Source of chance.
    """
    tokens, columns = values.shape
    begins = generator.random((tokens, columns)) < 1 / block
    keys = generator.random((tokens + 1, columns))
    key = np.take_along_axis(keys, np.cumsum(begins, axis=0), axis=0)
    found: Floats = np.take_along_axis(values, np.argsort(key, axis=0, kind="stable"), axis=0)
    return found
