"""Parquet files that skipviz wrote before: nothing of one is read before its size makes sense.

A file may be cut off, damaged, of something else, or made to do harm. All of that is one kind of
error.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skipviz.errors import InputError, StoreError

MOST_FILE_BYTES = 2 << 30
MOST_UNPACKED_BYTES = 4 << 30
"""Of all columns together, as the file says it."""
MOST_STORED_TEXT = 1 << 30
"""Of all texts, each row's counted, however often it is stored."""
_STORED_WHOLE = frozenset(
    {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_LENGTH_BYTE_ARRAY"}
)
"""Encodings under which a file holds each text whole, once at least."""


def stored_name(source: Path | str | io.BytesIO | bytes) -> str:
    """Return what a file is called in an error."""
    return "The data" if isinstance(source, io.BytesIO | bytes) else str(source)


@contextmanager
def one_kind_of_error(
    name: str, what: str, advice: str, *, private: bool = False
) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a ``StoreError``.

    Parameters
    ----------
    name
        What the file is called.
    what
        What it should be, as ``clusters``.
    advice
        A sentence of what to do.
    private
        Whether a reader is not to be told where files lie: what a library says ends before a path.
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
        reason = before_a_path(reason) if private else reason
        raise StoreError(
            f"{name} cannot be read as {what} ({type(error).__name__}: {reason:.200}). {advice}"
        ) from error


def before_a_path(reason: str) -> str:
    """Return what a library said, up to a path; Polars cuts long ones, to three dots in front."""
    return re.split(r"[\s:]*['\"]?(?:/|\w+://|\.\.\.)", reason, maxsplit=1)[0]


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
        if not 0 <= about.num_rows <= most_rows:
            raise InputError(
                f"It says that it has {about.num_rows:,} rows; {most_rows:,} are the most."
            )
        check_unpacked(content, most_values=most_values)
        table = parquet.read(use_threads=False)
    table.validate(full=True)
    beside = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in (about.metadata or {}).items()
    }
    return pl.DataFrame(pl.from_arrow(table)), beside


def check_unpacked(source: Path | str | io.BytesIO, *, most_values: int) -> None:
    """Check what a Parquet file unpacks to, before it is read.

    A text that stands in many rows may be stored once, so a small file can unpack to any size.

    Parameters
    ----------
    source
        File or buffer.
    most_values
        Values that a column may have, those of lists counted one by one.

    Raises
    ------
    InputError
        If that is too much, or the file says nothing sensible.
    """
    about = pq.ParquetFile(source).metadata
    columns = [
        about.row_group(group).column(place)
        for group in range(about.num_row_groups)
        for place in range(about.num_columns)
    ]
    unpacked = 0
    for column in columns:
        _check_column(column, most_values)
        unpacked += column.total_uncompressed_size
        if unpacked > MOST_UNPACKED_BYTES:
            raise InputError(
                f"It says that it unpacks to {unpacked:,} bytes; {MOST_UNPACKED_BYTES:,} are the "
                "most."
            )
    texts = {column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"}
    if texts:
        # Each different text once, and for each row which it is.
        stored = pq.ParquetFile(source, read_dictionary=sorted(texts))
        table = stored.read(columns=sorted(texts), use_threads=False)
        size = sum(_text_bytes(chunk) for column in table.columns for chunk in column.chunks)
        if size > MOST_STORED_TEXT:
            raise InputError(
                f"Its texts unpack to {size:,} bytes; {MOST_STORED_TEXT:,} are the most."
            )


def _check_column(column: Any, most_values: int) -> None:
    name, kind = column.path_in_schema, column.physical_type
    if not 0 <= column.num_values <= most_values:
        raise InputError(
            f"It says that {name} has {column.num_values:,} values; {most_values:,} are the most."
        )
    if column.total_uncompressed_size < 0:
        raise InputError(f"It says that {name} has fewer than 0 bytes.")
    packed = kind == "BYTE_ARRAY" and not _STORED_WHOLE.issuperset(column.encodings)
    if packed or kind == "FIXED_LEN_BYTE_ARRAY":
        raise InputError(f"{name} is stored in a way that skipviz does not write.")


def _text_bytes(array: Any) -> int:
    """Return how many bytes texts take, of an array whose texts are a dictionary's."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(_text_bytes, array.flatten()))
    if pa.types.is_nested(kind):
        return _text_bytes(array.flatten())
    return int(array.nbytes)
