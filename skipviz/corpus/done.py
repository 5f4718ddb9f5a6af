"""Which parts of a dataset are done, and their documents."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import (
    DONE_FOLDER,
    METADATA_KEY,
    PART_NAME,
    check_format,
    part_file,
    part_number,
)
from skipviz.errors import StoreError


def done_parts(folder: DatasetFolder) -> list[str]:
    """Return the names of the parts that are done, in their order."""
    found = [name.removesuffix(".parquet") for name in folder.names(DONE_FOLDER)]
    return sorted((name for name in found if PART_NAME.fullmatch(name)), key=part_number)


def read_done(folder: DatasetFolder, name: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return the documents of a part that is done, and what is said of its files.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    path = part_file(DONE_FOLDER, name)
    try:
        with folder.open(path) as file:
            table = pq.ParquetFile(file).read(use_threads=False)
        about = json.loads((table.schema.metadata or {})[METADATA_KEY.encode()])
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = folder.told(error)
        raise StoreError(
            f"{folder.named(path)} is damaged ({type(error).__name__}: {reason:.200}). Delete it "
            "and run the same command again: its part is made anew."
        ) from error
    check_format(about, folder.named(path))
    return table, about
