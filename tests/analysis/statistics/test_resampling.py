from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skipviz.analysis.statistics.resampling import MOST_PARTS, Resampling
from skipviz.errors import InputError

LEAST: dict[str, Any] = {"block": 1, "permutations": 1}


def test_the_least_that_can_be_resampled() -> None:
    found = Resampling.of(3, **LEAST)
    assert found.part.tolist() == [0, 1, 2]
    assert found.document.tolist() == [0, 0, 0]
    assert found.signs.shape[0] == 1


@pytest.mark.parametrize(
    ("length", "fields", "message"),
    [
        (2, {}, "2 tokens are too few"),
        (3, {"block": 0}, "block=0 must be at least 1"),
        (3, {"permutations": 0}, "permutations=0 must be from 1 to"),
        (3, {"documents": np.zeros(2, dtype=np.int64)}, "2 texts are named for 3 tokens"),
    ],
)
def test_less_is_said(length: int, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Resampling.of(length, **LEAST | fields)


def test_texts_are_counted_from_zero() -> None:
    documents = np.array([9, 9, 4, 4, 4, 9])
    found = Resampling.of(6, documents=documents, block=2, permutations=1)
    assert found.document.tolist() == [1, 1, 0, 0, 0, 1]
    assert [text.tolist() for text in found.texts] == [[2, 3, 4], [0, 1, 5]]
    assert found.part.tolist() == [2, 2, 0, 0, 1, 3]


def test_signs_follow_the_seed() -> None:
    found, again, other = (
        Resampling.of(200, block=32, permutations=20, seed=seed).signs for seed in (1, 1, 0)
    )
    assert found.size
    assert set(np.abs(found.ravel())) == {1.0}
    assert np.array_equal(found, again)
    assert not np.array_equal(found, other)
    assert 0.2 < (found > 0).mean() < 0.8


def test_there_are_at_most_so_many_parts() -> None:
    found = Resampling.of(4096, block=32, permutations=1)
    assert sorted(set(found.part.tolist())) == list(range(MOST_PARTS))
