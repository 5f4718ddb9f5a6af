"""Blocks of neighbouring tokens: what stays together wherever chance is imitated.

Tokens of a text are not independent: what holds for one tends to hold for the next. Permuting or
drawing them one by one destroys that and finds significance in noise. Here whole blocks of
neighbours change places, and whole blocks are drawn (Kunsch, "The jackknife and the bootstrap for
general stationary observations", 1989).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError

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


@dataclass(frozen=True, eq=False)
class Resampling:
    """Orders and draws of tokens, the same for all figures that are tested together.

    Attributes
    ----------
    orders
        Orders in which blocks changed places, [permutations, tokens].
    draws
        Tokens drawn in blocks with replacement, [permutations, tokens].
    blocks
        Blocks that there are to draw from.
    documents
        The text of each token, counted from 0, [tokens]; None if it is one.
    """

    orders: Ints
    draws: Ints
    blocks: int
    documents: Ints | None = None

    @classmethod
    def of(
        cls,
        length: int,
        *,
        documents: Ints | None = None,
        block: int,
        permutations: int,
        seed: int = 0,
    ) -> Resampling:
        """Draw them for ``length`` tokens.

        Parameters
        ----------
        length
            Tokens, at least 3.
        documents
            The text of each token, [length]; None if it is one.
        block
            Neighbouring tokens that stay together; a shorter text stays together whole.
        permutations
            How many orders, and how many draws.
        seed
            Seed of both.

        Raises
        ------
        ValueError
            If there are fewer than three tokens, or no blocks, permutations or texts of these.
        """
        if length < 3:
            raise InputError(f"{length} tokens are too few to correlate anything; give at least 3.")
        if block < 1:
            raise InputError(f"block={block} must be at least 1 token.")
        if permutations < 1:
            raise InputError(f"permutations={permutations} must be at least 1.")
        if documents is not None and len(documents) != length:
            raise InputError(
                f"{len(documents)} texts are named for {length} tokens; name the text of each."
            )
        generator = np.random.default_rng(seed)
        orders = block_permutations(
            length, permutations, block=block, generator=generator, documents=documents
        )
        if documents is None or len(np.unique(documents)) == 1:
            draws = _draws_of_one(length, block, permutations, generator)
            return cls(orders, draws, blocks_in(length, block))
        _, document = np.unique(documents, return_inverse=True)
        draws = _draws_of_several(document, block, permutations, generator)
        blocks = sum(blocks_in(int(tokens), block) for tokens in np.bincount(document))
        return cls(orders, draws, blocks, document)


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


def _draws_of_one(length: int, block: int, count: int, generator: np.random.Generator) -> Ints:
    """Return tokens drawn in blocks with replacement, [count, length], from a ring."""
    starts = generator.integers(length, size=(count, blocks_in(length, block)))
    drawn = (starts[:, :, None] + np.arange(block)) % length
    found: Ints = drawn.reshape(count, -1)[:, :length]
    return found


def _draws_of_several(
    document: Ints, block: int, count: int, generator: np.random.Generator
) -> Ints:
    """Return tokens of several texts drawn in blocks with replacement, [count, tokens].

    A block lies within a text, which is a ring, and may be of any. Texts shorter than a block are
    drawn whole: drawn from themselves alone they would never vary.
    """
    sizes = np.bincount(document)
    ordered = np.concatenate(tokens_by_text(document))
    first = (np.cumsum(sizes) - sizes)[document]
    place = np.argsort(ordered) - first
    width = np.minimum(block, sizes)[document]
    # So that each token is drawn as often as any other.
    share = np.cumsum(1 / width)
    draws = np.empty((count, len(document)), dtype=np.int64)
    for row in draws:
        chance = generator.random(len(document)) * share[-1]
        starts = np.minimum(np.searchsorted(share, chance, side="right"), len(document) - 1)
        widths = width[starts]
        start = np.repeat(starts, widths)[: len(document)]
        along = np.arange(len(start)) - np.repeat(np.cumsum(widths) - widths, widths)[: len(start)]
        row[:] = ordered[first[start] + (place[start] + along) % sizes[document[start]]]
    return draws
