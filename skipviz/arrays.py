"""Names for arrays of one kind of number, of any shape; and arrays that take little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def without_repeats(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a matrix whose rows are all the same as views of one row, and any other as it is.

    Rows are the same if their bytes are, so NaN is like NaN and -0.0 unlike 0.0. Views are
    read-only and take the memory of one row, however many there are.

    Parameters
    ----------
    matrix
        Of shape [rows, columns].
    """
    if len(matrix) < 2 or matrix.size == 0 or matrix.strides[0] == 0:
        return matrix
    if matrix[0].tobytes() != matrix[-1].tobytes():  # so most that differ are not looked through
        return matrix
    rows = np.ascontiguousarray(matrix).view(np.uint8).reshape(len(matrix), -1)
    if not (rows == rows[0]).all():
        return matrix
    return np.broadcast_to(matrix[0].copy(), matrix.shape)
