"""Files of stored results with faults in them: bytes that changed, values that make no sense."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

ODD: list[Any] = [
    None, -1, 0, 1, 2, 255, 10**6, 10**12, -(10**12), 2**62, 0.5, -0.5, float("nan"),
    float("inf"), float("-inf"), 1e300, "", "x", "mlp", "<b>", True, [], [1, 2],
]  # fmt: skip


def damaged_bytes(data: bytes, *, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield files of which a few bytes are others, or the end is missing."""
    draw = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data[: draw.randrange(len(data))] if draw.random() < 0.1 else data)
        # Half of the faults in what the file says of itself, at its end.
        first = 0 if draw.random() < 0.5 else max(0, len(changed) - 3000)
        for _ in range(draw.randint(1, 6)):
            if changed:
                changed[draw.randrange(first, len(changed))] = draw.randrange(256)
        yield bytes(changed)


def odd_cells(frame: pl.DataFrame, *, count: int, seed: int = 1) -> Iterator[pl.DataFrame]:
    """Yield tables of which a cell, a column or the order of rows is another."""
    draw = random.Random(seed)
    for _ in range(count):
        kind = draw.random()
        name = draw.choice(frame.columns)
        if kind < 0.7 and frame.height:
            yield _odd_cell(frame, name, draw)
        elif kind < 0.8:
            yield frame.drop(name)
        elif kind < 0.9:
            yield frame.with_columns(pl.lit(draw.choice([1, 0.5, "x", None])).alias(name))
        else:
            rows = list(range(frame.height)) or [0]
            rows = rows[:-1] if draw.random() < 0.5 else [*rows, draw.choice(rows)]
            yield frame[rows] if frame.height else frame


def _odd_cell(frame: pl.DataFrame, name: str, draw: random.Random) -> pl.DataFrame:
    values = frame[name].to_list()
    values[draw.randrange(len(values))] = draw.choice(ODD)
    try:
        column = pl.Series(name, values, dtype=frame.schema[name], strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        try:
            column = pl.Series(name, [str(value) for value in values])
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            column = pl.Series(name, [None] * len(values))
    return frame.with_columns(column)


def packed(frame: pl.DataFrame, metadata: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata=dict(metadata))
    return buffer.getvalue()


def many_times(row: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return a table of one row so often."""
    return pl.DataFrame([column.new_from_index(0, count) for column in row])
