"""Files that are there whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from skipviz.errors import InputError

if TYPE_CHECKING:
    import polars as pl


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Give a path beside the target, renamed to it once written, so that no half of a file stays.

    Parameters
    ----------
    target
        The file to make or to replace. A pipe or a device cannot be replaced and is written itself.
    """
    if "\0" in str(target):
        raise InputError(f"{target!r:.80} is no name of a file; name another.")
    special = target.exists() and not target.is_file()
    partial = target if special else target.with_name(target.name + ".partial")
    try:
        yield partial
        if not special:
            partial.replace(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}). Free some space, or name "
            "another file."
        ) from error
    finally:
        if not special:
            partial.unlink(missing_ok=True)


def write_table(
    frame: pl.DataFrame,
    target: Path | str | io.BytesIO,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a table as Parquet; the file is there whole or not at all.

    Parameters
    ----------
    frame
        The table.
    target
        File or buffer.
    metadata
        Kept in the file beside the table.
    """
    # By way of memory: of a full disk, polars says no more than that Parquet is invalid.
    with _whole(target) as buffer:
        frame.write_parquet(buffer, metadata=dict(metadata or {}))


def write_csv(frame: pl.DataFrame, target: Path | str | io.BytesIO, *, excel: bool = False) -> None:
    """Write a table as CSV; the file is there whole or not at all.

    Parameters
    ----------
    frame
        The table.
    target
        File or buffer.
    excel
        Whether it begins with a byte order mark.
    """
    with _whole(target) as buffer:
        frame.write_csv(buffer, include_bom=excel)


@contextmanager
def _whole(target: Path | str | io.BytesIO) -> Iterator[io.BytesIO]:
    """Give a buffer to write to, whose bytes then go to the target at once."""
    buffer = target if isinstance(target, io.BytesIO) else io.BytesIO()
    yield buffer
    if not isinstance(target, io.BytesIO):
        with atomic_write(Path(target)) as path:
            path.write_bytes(buffer.getbuffer())
