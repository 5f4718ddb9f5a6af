"""Clusters on disk: one Parquet file of one row, each table a list in it; nothing is pickled."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.analysis.clusters.stored_checks import check_clusters
from skipviz.atomic import write_table
from skipviz.errors import InputError
from skipviz.invariants import MOST_CELLS
from skipviz.parquet import one_kind_of_error, read_parquet_file, stored_name

FORMAT = 1
METADATA_KEY = "skipviz.clusters"
MOST_CLUSTER_VALUES = MOST_CELLS // 8
"""Of a column: tokens, or the profiles of references."""

_SITE: dict[str, Any] = {
    "site": pl.Int64,
    "label": pl.String,
    "layer": pl.Int64,
    "unit": pl.String,
}
CLUSTER_RUN: dict[str, Any] = {
    "model": pl.String,
    "weights_sha256": pl.String,
    "on": pl.String,
    "method": pl.String,
    "metric": pl.String,
    "seed": pl.Int64,
    "chosen": pl.Boolean,
    "p": pl.Float64,
    "p_continuum": pl.Float64,
    "stability": pl.Float64,
}
PROFILES: dict[str, Any] = {
    "cluster": pl.Int64,
    "tokens": pl.Int64,
    **_SITE,
    "rate": pl.Float64,
    "score": pl.Float64,
}
TABLES: dict[str, dict[str, Any]] = {
    "run": CLUSTER_RUN,
    "sites": {**_SITE, "visit": pl.Int64, "centre": pl.Float64, "spread": pl.Float64},
    "tokens": {
        "trace": pl.Int64,
        "token": pl.Int64,
        "source": pl.String,
        "sequence": pl.Int64,
        "position": pl.Int64,
        "text": pl.String,
        "cluster": pl.Int64,
        "distance": pl.Float64,
    },
    "profiles": PROFILES,
    "criterion": {
        "clusters": pl.Int64,
        "silhouette": pl.Float64,
        "shuffled": pl.Float64,
        "shuffled_high": pl.Float64,
        "continuum": pl.Float64,
        "continuum_high": pl.Float64,
    },
    "references": {"cluster": pl.Int64, "profile": pl.Array},
}
"""The tables of ``Clusters`` and their columns; profiles are as long as there are sites."""


def write_tables(tables: Mapping[str, pl.DataFrame], target: Path | str | io.BytesIO) -> None:
    """Write the tables of clusters.

    Parameters
    ----------
    tables
        Those of ``TABLES``.
    target
        File or buffer.
    """
    row = pl.DataFrame({name: [table.to_struct()] for name, table in tables.items()})
    write_table(row, target, metadata={METADATA_KEY: json.dumps({"format": FORMAT})})


def read_tables(source: Path | str | io.BytesIO) -> dict[str, pl.DataFrame]:
    """Return the tables that ``write_tables`` wrote.

    Parameters
    ----------
    source
        File or buffer.

    Raises
    ------
    StoreError
        If there are no clusters in it, clusters of another format, not all of them, or some that
        make no sense.
    """
    name = stored_name(source)
    with one_kind_of_error(name, "clusters", "Give a file that Clusters.save wrote."):
        frame, beside = read_parquet_file(
            source, most_rows=1, most_values=MOST_CLUSTER_VALUES, key=METADATA_KEY
        )
        written = json.loads(beside[METADATA_KEY])
        if not isinstance(written, dict) or written.get("format") != FORMAT:
            raise InputError(
                f"It is not of the format that this version of skipviz reads, which is {FORMAT}."
            )
        tables = {table: _table(frame, table) for table in TABLES}
        check_clusters(tables)
    return tables


def _table(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return one table, if it has the columns that it should have."""
    if table not in frame.columns or frame.height != 1:
        raise InputError(f"There is no table {table}.")
    column = frame[table]
    structs = column.dtype == pl.List and isinstance(column.dtype.inner, pl.Struct)  # type: ignore[attr-defined]
    found = column[0].struct.unnest() if structs and column[0] is not None else pl.DataFrame()
    for wanted, dtype in TABLES[table].items():
        if found.schema.get(wanted) != dtype:
            raise InputError(
                f"There is {found.schema.get(wanted)} where column {wanted} of table {table} "
                f"should be {dtype}."
            )
    if column[0].null_count():  # a row that is missing is none of nulls
        raise InputError(f"Table {table} has a row that is missing.")
    return found.select(list(TABLES[table]))
