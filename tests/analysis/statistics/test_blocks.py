"""What stays together: by hand, on a few tokens."""

from __future__ import annotations

import numpy as np
import pytest

from skipviz.analysis.statistics.blocks import (
    BLOCK_TOKENS,
    MIN_TEXTS_AS_GROUPS,
    block_of,
    block_parts,
    block_permutations,
    blocks_in,
    dependent_groups,
    shuffled_columns,
    tokens_by_text,
)


def test_blocks_begin_at_their_first_token() -> None:
    assert BLOCK_TOKENS == 32
    assert block_of(np.array([0, 31, 32, 63, 64])).tolist() == [0, 0, 1, 1, 2]
    assert [blocks_in(tokens) for tokens in (0, 1, 32, 33, 64, 65)] == [0, 1, 1, 2, 2, 3]
    assert [blocks_in(tokens, 5) for tokens in (4, 5, 6)] == [1, 1, 2]


def test_tokens_of_a_text_keep_their_order() -> None:
    parts = tokens_by_text(np.array([7, 2, 7, 2, 9]))
    assert [part.tolist() for part in parts] == [[1, 3], [0, 2], [4]]


@pytest.mark.parametrize("texts", [MIN_TEXTS_AS_GROUPS - 1, MIN_TEXTS_AS_GROUPS])
def test_few_texts_are_parted_and_many_are_wholes(texts: int) -> None:
    documents = np.repeat(np.arange(texts), 40)
    groups = dependent_groups(documents)
    if texts < MIN_TEXTS_AS_GROUPS:
        one_text = [0] * 32 + [1] * 8
        assert groups.tolist() == [2 * text + block for text in range(texts) for block in one_text]
    else:
        assert groups.tolist() == documents.tolist()


def test_parts_are_blocks_until_there_are_too_many() -> None:
    texts = [np.arange(5), np.arange(5, 12)]
    assert block_parts(texts, block=4, most=9).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    assert block_parts(texts, block=4, most=4).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3]
    assert block_parts(texts, block=4, most=2).tolist() == [0] * 5 + [1] * 7
    assert block_parts(texts, block=99, most=9).tolist() == [0] * 5 + [1] * 7


def test_blocks_of_a_ring_change_places_within_their_text() -> None:
    documents = np.array([0] * 7 + [1] * 2)
    orders = block_permutations(
        9, 50, block=3, generator=np.random.default_rng(0), documents=documents
    )
    assert orders.shape == (50, 9)
    for order in orders:
        assert sorted(order[:7]) == list(range(7))
        assert sorted(order[7:]) == [7, 8]
        # Of seven neighbours on a ring at most three pairs are parted by cuts into 3, 3 and 1.
        steps = np.diff(order[:7]) % 7 != 1
        assert steps.sum() <= 2
    assert len({tuple(order) for order in orders}) > 10
    assert {tuple(order[7:]) for order in orders} == {(7, 8), (8, 7)}
    whole = block_permutations(5, 9, block=9, generator=np.random.default_rng(0))
    assert all((np.diff(order) % 5 == 1).all() for order in whole)


def test_shuffled_columns_keep_their_values_and_mostly_their_neighbours() -> None:
    values = np.column_stack([np.arange(400.0), np.arange(400.0)])
    generator = np.random.default_rng(0)
    found = shuffled_columns(values, block=8, generator=generator)
    assert np.array_equal(np.sort(found, axis=0), values)
    together = (np.diff(found, axis=0) == 1).mean(axis=0)
    assert together == pytest.approx([7 / 8, 7 / 8], abs=0.05)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.5
    alone = shuffled_columns(values, block=1, generator=generator)
    assert (np.diff(alone, axis=0) == 1).mean() < 0.02
