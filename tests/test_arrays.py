from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from skipviz.arrays import without_repeats

SAME: list[npt.NDArray[Any]] = [
    np.full((50, 3), np.nan, dtype=np.float32),
    np.tile(np.array([1.5, np.nan, -0.0], dtype=np.float32), (50, 1)),
    np.zeros((50, 3), dtype=np.bool_),
    np.asfortranarray(np.full((50, 3), 7, dtype=np.uint8)),
]


@pytest.mark.parametrize("matrix", SAME)
def test_equal_rows_take_the_memory_of_one(matrix: npt.NDArray[Any]) -> None:
    small = without_repeats(matrix)
    assert small.tobytes() == matrix.tobytes()
    assert small.dtype == matrix.dtype
    assert small.shape == matrix.shape
    assert small.base is not None
    assert small.base.nbytes == matrix[0].nbytes
    assert not small.flags.writeable
    assert without_repeats(small) is small


@pytest.mark.parametrize("row", [0, 25, 49])
def test_one_other_bit_is_kept(row: int) -> None:
    matrix = np.zeros((50, 3), dtype=np.float32)
    matrix[row, 1] = -0.0
    assert without_repeats(matrix) is matrix


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 0)])
def test_what_has_no_two_rows_is_left_as_it_is(shape: tuple[int, int]) -> None:
    matrix = np.zeros(shape, dtype=np.float32)
    assert without_repeats(matrix) is matrix
