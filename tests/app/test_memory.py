from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch

from skipviz.app.memory import held_bytes

ROWS = 100_000
TOLERANCE = 2_000
"""Bytes of the objects around the arrays."""


@dataclass(frozen=True)
class Held:
    first: npt.NDArray[np.float32]
    second: object


ARRAY = np.zeros(ROWS, dtype=np.float32)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ARRAY, 4 * ROWS),
        (ARRAY[:1], 4 * ROWS),  # a view keeps the whole
        (np.broadcast_to(ARRAY[:7].copy(), (ROWS, 7)), 7 * 4),
        (pl.DataFrame({"a": np.zeros(ROWS), "b": np.zeros(ROWS, dtype=np.uint8)}), 9 * ROWS),
        (pl.DataFrame({"a": np.zeros(ROWS)}).to_pandas(), 8 * ROWS),
        (torch.zeros(ROWS)[:5], 4 * ROWS),
        ("x" * ROWS, ROWS),
        (Held(ARRAY, {"again": [ARRAY, "y" * ROWS]}), 5 * ROWS),
        (None, 0),
    ],
)
def test_what_a_value_holds(value: object, expected: int) -> None:
    assert expected <= held_bytes(value) <= expected + TOLERANCE
