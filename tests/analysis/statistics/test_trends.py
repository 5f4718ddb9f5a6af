from __future__ import annotations

import numpy as np
import pytest

from skipviz.analysis.statistics.blocks import block_parts
from skipviz.analysis.statistics.resampling import MOST_PARTS, Resampling
from skipviz.analysis.statistics.trends import waves


def test_waves_have_the_products_of_tokens_but_for_slow_ones() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 100))
    texts = [np.arange(0, 100, 2), np.arange(1, 100, 2)]
    found = waves(np.column_stack([x, y]), texts)
    assert found.shape == (92, 2)  # the mean and three more of each
    naive = 0.0
    for text in texts:
        place = (np.arange(50) + 0.5) / 50
        slow, _ = np.linalg.qr(np.cos(np.pi * np.outer(place, np.arange(4))))
        rest = [v[text] - slow @ (slow.T @ v[text]) for v in (x, y)]
        naive += rest[0] @ rest[1]
    assert found[:, 0] @ found[:, 1] == pytest.approx(naive)
    assert waves(x, texts) == pytest.approx(found[:, 0])
    assert len(waves(x, [np.arange(100)])) == 100 - 1 - 6


def test_nothing_is_left_of_a_level_a_line_or_a_short_text() -> None:
    for values in (np.ones(80), np.arange(80.0)):
        assert (waves(values, [np.arange(80)]) == 0).all()
    assert waves(np.arange(4.0), [np.arange(4)]).shape == (0,)


def test_parts_are_blocks_of_their_text_or_several_in_a_row() -> None:
    texts = [np.arange(50), np.arange(50, 57)]
    part = block_parts(texts, block=25, most=32)
    assert part.tolist() == [0] * 25 + [1] * 25 + [2] * 7
    many = block_parts([np.arange(10_000)], block=10, most=32)
    assert len(np.unique(many)) == 32
    assert (np.diff(many) >= 0).all()
    assert np.bincount(many).min() > 250


def test_one_text_is_as_none_named_and_signs_are_of_waves() -> None:
    one, none = (
        Resampling.of(77, documents=each, block=8, permutations=5, seed=0)
        for each in (np.zeros(77, dtype=np.int64), None)
    )
    assert (one.signs == none.signs).all()
    assert one.signs.shape == (5, 77 - 5)
    assert set(np.unique(one.signs)) == {-1.0, 1.0}
    assert (one.part == none.part).all()
    assert one.part.max() + 1 == 10 <= MOST_PARTS
