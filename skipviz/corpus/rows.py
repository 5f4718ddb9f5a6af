"""The rows of a part: a trace as a table of columns per site, and that table as Parquet."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from skipviz.corpus.format import SITE_LISTS, token_schema
from skipviz.traces import Trace

LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def token_table(trace: Trace, document: npt.NDArray[np.int64]) -> pa.Table:
    """Return a trace as rows of a corpus.

    Parameters
    ----------
    trace
        Of one text, or several.
    document
        The document of each of its tokens.
    """
    labels = trace.sites["label"].to_list()
    schema = token_schema(labels)
    # A recording may not know which token it was.
    tokens = trace.tokens.with_columns(pl.when(pl.col("token_id") >= 0).then("token_id"))
    span, sequence = tokens["span"].to_numpy(), tokens["sequence"].to_numpy()
    first = np.r_[True, sequence[1:] != sequence[:-1]][: len(span)]
    own = span - span[np.maximum.accumulate(np.where(first, np.arange(len(span)), 0))]
    made: dict[str, Any] = {"document": document, "span": own}
    columns = [
        pa.array(made[field.name]).cast(field.type)
        if field.name in made
        else tokens[field.name].to_arrow().cast(field.type)
        for field in schema
        if field.name in tokens.columns or field.name in made
    ]
    ran = np.ascontiguousarray(trace.matrix("exec_count").T)
    score = np.ascontiguousarray(trace.matrix("score").T)
    for site in range(len(labels)):
        columns += [pa.array(ran[site] > 0), _half(score[site])]
    if labels:
        columns += [_listed(trace.matrix(name), name) for name in SITE_LISTS]
    return pa.Table.from_arrays(columns, schema=schema)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet, one row group.

    Numbers that were measured are split by bytes, but for scores in float16, which DuckDB would not
    read then, and which are no smaller for it.
    """
    split = [field.name for field in table.schema if pa.types.is_float32(field.type)]
    repeated = [
        f"{field.name}.list.element" if pa.types.is_fixed_size_list(field.type) else field.name
        for field in table.schema
        if not pa.types.is_floating(field.type) and not pa.types.is_boolean(field.type)
    ]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=max(1, table.num_rows),
        compression="zstd",
        use_dictionary=repeated,
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        write_statistics=["document", "position"],
    )
    return buffer.getvalue()


def _half(values: npt.NDArray[np.float32]) -> pa.Array:
    """Return scores in float16, null where there was none."""
    kept = np.clip(values, -LARGEST_FLOAT16, LARGEST_FLOAT16).astype(np.float16)
    return pa.array(kept, mask=np.isnan(values))


def _listed(matrix: npt.NDArray[Any], name: str) -> pa.Array:
    """Return a row of a matrix per token, null where it says nothing."""
    height, width = matrix.shape
    kind = pa.list_(SITE_LISTS[name], width)
    counted = name == "exec_count"
    silent = (matrix <= 1).all(axis=1) if counted else np.isnan(matrix).all(axis=1)
    if silent.all():
        return pa.nulls(height, kind)
    flat = np.ascontiguousarray(matrix).reshape(-1)
    values = pa.array(flat, mask=None if counted else np.isnan(flat))
    return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=pa.array(silent))
