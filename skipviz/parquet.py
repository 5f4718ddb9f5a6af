"""Parquet files that skipviz wrote before: nothing of one is read before its size makes sense.

A file may be cut off, damaged, of something else, or made to do harm. All of that is one kind of
error.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from skipviz.errors import InputError, StoreError

MOST_FILE_BYTES = 2 << 30
MOST_UNPACKED_BYTES = 4 << 30
"""Of all columns together, as the file says it."""


def stored_name(source: Path | str | io.BytesIO) -> str:
    """Return what a file is called in an error."""
    return "The data" if isinstance(source, io.BytesIO) else str(source)


@contextmanager
def one_kind_of_error(name: str, what: str, advice: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a ``StoreError``.

    Parameters
    ----------
    name
        What the file is called.
    what
        What it should be, as ``clusters``.
    advice
        A sentence of what to do.
    """
    try:
        yield
    except StoreError:
        raise
    except InputError as error:
        raise StoreError(f"{name} cannot be read as {what}: {error} {advice}") from error
    # Every library below raises its own kinds.
    except (Exception, pl.exceptions.PanicException) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise StoreError(
            f"{name} cannot be read as {what} ({type(error).__name__}: {reason:.200}). {advice}"
        ) from error


def check_regular_file(path: Path | str) -> None:
    """Raise ``InputError`` where a path is there and is not a file, as a folder, pipe or device.

    Such a thing might never end, or never begin.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path} is a folder, a pipe or a device, not a file.")


def read_parquet_file(
    source: Path | str | io.BytesIO, *, most_rows: int, most_values: int, key: str | None = None
) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Return the table of a Parquet file, and what is kept beside it.

    Parameters
    ----------
    source
        File or buffer.
    most_rows
        Rows that it may have.
    most_values
        Values that a column may have, those of lists counted one by one.
    key
        What must be kept beside the table, if the file is of the right kind.

    Raises
    ------
    InputError
        If it is no regular file, or says that it is larger. What libraries raise is left to
        ``one_kind_of_error``.
    """
    content = io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else source
    if not isinstance(content, io.BytesIO):
        check_regular_file(content)
        size = Path(content).stat().st_size
        if size > MOST_FILE_BYTES:
            raise InputError(f"It has {size:,} bytes, more than {MOST_FILE_BYTES:,}.")
    with pq.ParquetFile(content) as parquet:
        about = parquet.metadata
        if key is not None and key.encode() not in (about.metadata or {}):
            raise InputError("It is a Parquet file of another kind.")
        _check_claims(about, most_rows=most_rows, most_values=most_values)
        table = parquet.read(use_threads=False)
    table.validate(full=True)
    beside = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in (about.metadata or {}).items()
    }
    return pl.DataFrame(pl.from_arrow(table)), beside


def _check_claims(about: pq.FileMetaData, *, most_rows: int, most_values: int) -> None:
    rows = about.num_rows
    if not 0 <= rows <= most_rows:
        raise InputError(f"It says that it has {rows:,} rows; {most_rows:,} are the most.")
    unpacked = 0
    for group in range(about.num_row_groups):
        for place in range(about.num_columns):
            column = about.row_group(group).column(place)
            unpacked += column.total_uncompressed_size
            if not 0 <= column.num_values <= most_values:
                raise InputError(
                    f"It says that {column.path_in_schema} has {column.num_values:,} values; "
                    f"{most_values:,} are the most."
                )
            if column.total_uncompressed_size < 0 or unpacked > MOST_UNPACKED_BYTES:
                raise InputError(
                    f"It says that it unpacks to {unpacked:,} bytes; {MOST_UNPACKED_BYTES:,} are "
                    "the most."
                )
