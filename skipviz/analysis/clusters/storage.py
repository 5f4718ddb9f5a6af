"""Clusters on disk: one Parquet file of one row, each table a list in it; nothing is pickled."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from skipviz.analysis.clusters.grouping import CLUSTERING_METHODS, METRICS
from skipviz.analysis.clusters.profiles import PROFILE_VALUES
from skipviz.atomic import write_table
from skipviz.errors import InputError

FORMAT = 1
METADATA_KEY = "skipviz.clusters"

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
    ValueError
        If there are no clusters in it, clusters of another format, or not all of them.
    """
    name = "The data" if isinstance(source, io.BytesIO) else str(source)
    content = source.getvalue() if isinstance(source, io.BytesIO) else source
    try:
        metadata = pl.read_parquet_metadata(_again(content))
        frame = pl.read_parquet(_again(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{name} cannot be read as clusters: {error}. Give a file that Clusters.save wrote."
        ) from error
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{name} is a Parquet file without clusters. Give a file that Clusters.save wrote."
        )
    written = _format(metadata[METADATA_KEY])
    if written != FORMAT:
        raise InputError(
            f"{name} has clusters of format {written}; this version of skipviz reads format "
            f"{FORMAT}."
        )
    tables = {table: _table(frame, table, name) for table in TABLES}
    _check_values(tables, name)
    return tables


def _again(content: Path | str | bytes) -> Any:
    return io.BytesIO(content) if isinstance(content, bytes) else content


def _format(written: str) -> Any:
    try:
        found = json.loads(written)
    except ValueError:
        return None
    return found.get("format") if isinstance(found, dict) else None


def _table(frame: pl.DataFrame, table: str, name: str) -> pl.DataFrame:
    """Return one table, if it has the columns that it should have."""
    if table not in frame.columns or frame.height != 1:
        raise InputError(f"{name} has no table {table} of clusters. Save the clusters again.")
    column = frame[table]
    structs = column.dtype == pl.List and isinstance(column.dtype.inner, pl.Struct)  # type: ignore[attr-defined]
    found = column[0].struct.unnest() if structs and column[0] is not None else pl.DataFrame()
    for wanted, dtype in TABLES[table].items():
        if found.schema.get(wanted) != dtype:
            raise InputError(
                f"{name} has {found.schema.get(wanted)} where column {wanted} of table {table} "
                f"should be {dtype}. Save the clusters again."
            )
    return found


def _check_values(tables: Mapping[str, pl.DataFrame], name: str) -> None:
    """Raise ``ValueError`` where tables do not go together."""
    run, references = tables["run"], tables["references"]
    width = references["profile"].dtype.shape[0]  # type: ignore[attr-defined]
    whole = (
        run.height == 1
        and width == tables["sites"].height
        and references.height > 0
        and references["profile"].null_count() == 0
    )
    if not whole:
        raise InputError(
            f"{name} has {run.height} runs, {references.height} reference profiles of {width} "
            f"sites and {tables['sites'].height} sites, which do not go together. Save the "
            "clusters again."
        )
    for column, valid in (
        ("on", PROFILE_VALUES),
        ("method", CLUSTERING_METHODS),
        ("metric", METRICS),
    ):
        if run[column][0] not in valid:
            raise InputError(
                f"{name} has clusters with {column}={run[column][0]!r}, which is not one of "
                f"{', '.join(valid)}. Save the clusters again."
            )
