"""The rows of a bench: times over a grid of settings, on a machine that each row names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.analysis.timing.measured import PHASES, RUNTIMES
from skipviz.atomic import write_table
from skipviz.errors import InputError
from skipviz.invariants import all_given, has_columns, within
from skipviz.parquet import check_regular_file, one_kind_of_error, read_parquet_file, stored_name

CELL: dict[str, Any] = {
    "model": pl.String,
    "weights_sha256": pl.String,
    "cpu": pl.String,
    "cores": pl.Int64,
    "torch_version": pl.String,
    "device": pl.String,
    "device_name": pl.String,
    "threads": pl.Int64,
    "dtype": pl.String,
    "policy": pl.String,
    "budget": pl.Float64,
    "setup_sha256": pl.String,
    "text_sha256": pl.String,
    "batch": pl.Int64,
    "length": pl.Int64,
    "decoded": pl.Int64,
    "rounds": pl.Int64,
}
"""What a cell of the grid is found by.

``budget`` is null for a model without budgets. ``setup_sha256`` is of configuration and thresholds,
null where unknown; ``text_sha256`` of the ids of the text, before it is repeated up to ``length``.
"""
BENCH: dict[str, Any] = CELL | {
    "phase": pl.String,
    "runtime": pl.String,
    "seconds": pl.Float64,
    "dense_seconds": pl.Float64,
    "time_over_dense": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "flops_saved": pl.Float64,
    "over_flops": pl.Float64,
}
"""``seconds`` are medians of one forward of the whole batch: of all its tokens in prefill, of one
step, a token of each text, in decode."""
MAYBE_UNKNOWN = ("budget", "setup_sha256", "dense_seconds", "time_over_dense", "low", "high",
                 "flops_saved", "over_flops")  # fmt: skip
BENCH_KEY = "skipviz_bench"
BENCH_FORMAT = "2"
MOST_BENCH_ROWS = 1_000_000
_ADVICE = "Name a file that `skipviz bench` wrote, or another to begin a new one."


def read_bench(source: Path | io.BytesIO, *, name: str | None = None) -> pl.DataFrame:
    """Return the rows of a bench.

    Parameters
    ----------
    source
        What ``skipviz bench`` wrote.
    name
        What the file is called in an error; None: its own name.

    Raises
    ------
    StoreError
        If it is no bench, one of another version, or damaged.
    """
    called = name or stored_name(source)
    with one_kind_of_error(called, "a bench", _ADVICE):
        found, beside = read_parquet_file(
            source, most_rows=MOST_BENCH_ROWS, most_values=MOST_BENCH_ROWS, key=BENCH_KEY
        )
        if beside[BENCH_KEY] != BENCH_FORMAT:
            raise InputError(
                f"It is of version {beside[BENCH_KEY]!r:.20}; this skipviz reads {BENCH_FORMAT}."
            )
        check_bench(found)
    return found


def write_bench(rows: pl.DataFrame, target: Path) -> None:
    """Write the rows of a bench; the file is there whole or not at all."""
    check_regular_file(target)
    write_table(rows, target, metadata={BENCH_KEY: BENCH_FORMAT})


def check_bench(found: pl.DataFrame) -> None:
    """Check the rows of a bench.

    Raises
    ------
    InputError
        Names what is wrong.
    """
    has_columns("rows", found, BENCH)
    if unknown := sorted(set(found.columns) - set(BENCH)):
        raise InputError(f"It has the column {unknown[0]!r:.80}, which no bench has.")
    all_given(found, "rows", tuple(name for name in BENCH if name not in MAYBE_UNKNOWN))
    for name, known in (("phase", PHASES), ("runtime", RUNTIMES)):
        if others := sorted(set(found[name]) - set(known)):
            raise InputError(f"{name} is {others[0]!r:.40}, not one of {', '.join(known)}.")
    for name in ("cores", "threads", "batch", "length", "rounds"):
        within(found, "rows", name, 1, 1e9)
    for name in ("seconds", "dense_seconds", "time_over_dense"):
        within(found, "rows", name, 0, 1e9)
    within(found, "rows", "decoded", 0, 1e9)
    within(found, "rows", "budget", 0, 1e3)
    if found.select([*CELL, "phase", "runtime"]).is_duplicated().any():
        raise InputError("Some rows stand there twice.")


def cell_keys(rows: pl.DataFrame) -> set[tuple[Any, ...]]:
    """Return the cells that rows are of, each as the values of ``CELL``."""
    return set(rows.select(list(CELL)).unique().iter_rows())


def machine_lines(rows: pl.DataFrame) -> pl.Series:
    """Return, for each row, its machine in a line."""
    name = pl.when(pl.col("device") == "cpu").then(pl.col("cpu")).otherwise(pl.col("device_name"))
    return rows.select(
        machine=pl.format("{}, {} cores, torch {}", name, "cores", "torch_version")
    ).to_series()
