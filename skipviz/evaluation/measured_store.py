"""Figures of policies on documents, kept in a file so that none is measured twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.atomic import write_table
from skipviz.errors import InputError, StoreError
from skipviz.invariants import MOST_LAYERS, all_given, has_columns, within
from skipviz.parquet import check_regular_file, one_kind_of_error, read_parquet_file

ACCOUNTING = 2
"""Raised when decisions come to other FLOPs than before, so that no store serves what was."""
KNOWN_BY: dict[str, Any] = {
    "model": pl.String,
    "weights_sha256": pl.String,
    "setup_sha256": pl.String,
    "dtype": pl.String,
    "policy": pl.String,
    "budget": pl.Float64,
    "limit": pl.Float64,
    "setting": pl.String,
    "accounting": pl.Int64,
    "text_sha256": pl.String,
}
"""What a row of a store is found by."""
Key = tuple[str, str, str, str, str, float | None, float | None, str, int, str]
PARTS = (
    "attention_share", "mlp_share", "adapters_share", "gates_share", "kv_share", "head_share",
)  # fmt: skip
RANGES: dict[str, tuple[float, float]] = {
    "nll": (0, 1e9),
    "kl": (-1e-3, 1e9),
    "top1": (0, 1),
    "layers_used": (0, MOST_LAYERS),
    "realised": (0, 1e3),
    "flop_share": (0, 1e3),
    **dict.fromkeys(PARTS, (0, 1e3)),
}
"""The figures of a row, and from where to where they can be."""
MEASURED_COLUMNS = KNOWN_BY | dict.fromkeys(RANGES, pl.Float64)
MOST_MEASURED = 10_000_000
STORE_ADVICE = "Name another file for the store."
_SHARES_MISS = 1e-6


def read_measured(store: Path | None) -> dict[Key, dict[str, float]]:
    """Return the figures in a store, by what they are found by; none where there is no file.

    Raises
    ------
    StoreError
        If it is no store, one of another version, or damaged, or there is no folder for it.
    """
    if store is None:
        return {}
    if not store.parent.is_dir():
        raise StoreError(f"There is no folder {store.parent} for a store; make it.")
    if not store.exists():
        return {}
    with one_kind_of_error(str(store), "a store of figures", STORE_ADVICE):
        found, _ = read_parquet_file(store, most_rows=MOST_MEASURED, most_values=MOST_MEASURED)
        check_measured(found)
        keys = found.select(list(KNOWN_BY)).rows()
        return dict(zip(keys, found.select(list(RANGES)).to_dicts(), strict=True))


def write_measured(store: Path | None, known: Mapping[Key, Mapping[str, float]]) -> None:
    """Write figures, and those that another run has written meanwhile."""
    if store is None:
        return
    all_known = read_measured(store) | dict(known)
    rows = [
        {**dict(zip(KNOWN_BY, key, strict=True)), **figures} for key, figures in all_known.items()
    ]
    check_regular_file(store)
    write_table(pl.DataFrame(rows, schema=MEASURED_COLUMNS), store)


def check_measured(found: pl.DataFrame) -> None:
    """Check the figures of a store.

    Raises
    ------
    InputError
        Names what is wrong; a ``TraceError`` is one.
    """
    has_columns("figures", found, MEASURED_COLUMNS)
    if unknown := sorted(set(found.columns) - set(MEASURED_COLUMNS)):
        raise InputError(f"It has the column {unknown[0]!r:.80}, which no store has.")
    given = tuple(name for name in MEASURED_COLUMNS if name not in ("budget", "limit"))
    all_given(found, "figures", given)
    for name in ("budget", "limit"):
        within(found, "figures", name, 0, 1e9)
    for name, (least, most) in RANGES.items():
        within(found, "figures", name, least, most)
    if not found["text_sha256"].str.contains("^[0-9a-f]{64}$").all():
        raise InputError("A value of text_sha256 is not a SHA-256.")
    now = found.filter(pl.col("accounting") == ACCOUNTING)
    missed = now["flop_share"] - now.select(pl.sum_horizontal(PARTS)).to_series()
    if (missed.abs() > _SHARES_MISS).any():
        raise InputError("Shares of FLOPs do not add up to flop_share.")
    if found.select(list(KNOWN_BY)).is_duplicated().any():
        raise InputError("Some figures stand there twice.")
