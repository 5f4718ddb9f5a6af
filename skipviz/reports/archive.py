"""All tables of a trace and of its analyses as one ZIP."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from skipviz.atomic import atomic_write
from skipviz.reports.sections import Table
from skipviz.tables import csv_bytes, without_nesting
from skipviz.traces import Trace

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file in it: the same tables make the same ZIP."""


def write_archive(
    trace: Trace, path: Path, *, tables: Sequence[Table] = (), excel: bool = False
) -> None:
    """Write the four tables of a trace, further ones, and the trace itself.

    Parameters
    ----------
    trace
        The trace.
    path
        The file to write.
    tables
        Those of analyses.
    excel
        Whether CSV begins with a byte order mark, as Excel wants it for letters beyond ASCII.
    """
    frames: dict[str, pl.DataFrame] = {
        "run": trace.run,
        "sites": trace.sites,
        "tokens": trace.tokens,
        "decisions": trace.to_long(),
    }
    frames |= {table.name: table.frame for table in tables if table.name not in frames}
    saved = io.BytesIO()
    trace.save(saved)
    with atomic_write(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, frame in frames.items():
            _add(archive, f"{name}.csv", csv_bytes(without_nesting(frame), excel=excel))
        _add(archive, "trace.parquet", saved.getvalue())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)
