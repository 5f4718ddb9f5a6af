"""The files of a corpus: their names, their columns and their version (docs/corpus_format.md)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from skipviz.errors import StoreError

FORMAT = 1
METADATA_KEY = "skipviz"

CORPUS_FILE = "corpus.json"
MANIFEST_FILE = "manifest.json"
DOCUMENTS_FILE = "documents.parquet"
TOKENS_FOLDER = "tokens"
DONE_FOLDER = "done"
PART_NAME = re.compile(r"\d{6,}-[0-9a-f]{16}")
_SURROGATE = re.compile("[\ud800-\udfff]")
PARTIAL = ".partial"
"""How the name of a file ends while it is being written."""
PART_CHARACTERS = 200_000
"""Characters of text that end a part: some 45,000 tokens."""

ROW_COLUMNS = {
    "document": pa.int64(),
    "position": pa.int32(),
    "token_id": pa.int32(),
    "text": pa.string(),
    "char_start": pa.int32(),
    "char_end": pa.int32(),
    "span": pa.int32(),
    "context": pa.int32(),
    "phase": pa.string(),
    "surprisal": pa.float32(),
    "nll": pa.float32(),
    "entropy": pa.float32(),
    "layers_used": pa.float32(),
    "exit_depth": pa.int32(),
}
"""Columns of ``tokens`` that do not depend on sites."""
SITE_LISTS = {"threshold": pa.float32(), "p_execute": pa.float32(), "exec_count": pa.uint8()}
"""Columns of ``tokens`` with an entry per site."""
DOCUMENT_COLUMNS = {
    "document": pa.int64(),
    "source": pa.string(),
    "sha256": pa.string(),
    "characters": pa.int64(),
    "tokens": pa.int64(),
    "error": pa.string(),
}
"""Columns of ``documents.parquet`` before the user's own."""
OWN_COLUMNS = "columns"
"""In ``done``: the user's columns, as a JSON object."""


def score_column(label: str) -> str:
    """Return the name of the column of a site's scores."""
    return f"{label}.score"


def token_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the columns of ``tokens``.

    Parameters
    ----------
    labels
        Of the sites, in the order in which they run.
    """
    fields = dict(ROW_COLUMNS)
    for label in labels:
        fields |= {label: pa.bool_(), score_column(label): pa.float16()}
    if labels:
        fields |= {name: pa.list_(kind, len(labels)) for name, kind in SITE_LISTS.items()}
    return pa.schema(list(fields.items()))


def done_schema() -> pa.Schema:
    """Return the columns of the files in ``done``."""
    return pa.schema([*DOCUMENT_COLUMNS.items(), (OWN_COLUMNS, pa.string())])


def part_name(number: int, contents: Iterable[str]) -> str:
    """Return the name of a part, which is fixed by what its documents hold.

    Parameters
    ----------
    number
        Its place among the parts, from 0.
    contents
        What identifies each of its documents, in their order.
    """
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content.encode("utf-8", "surrogatepass") + b"\n")
    return f"{number:06}-{digest.hexdigest()[:16]}"


def part_number(name: str) -> int:
    """Return the place of a part among the parts."""
    return int(name.partition("-")[0])


def part_file(folder: str, name: str) -> str:
    """Return the path of a part's file, relative to the dataset."""
    return f"{folder}/{name}.parquet"


def as_json(value: Any) -> str:
    """Return a value as JSON, the same for the same value; what JSON lacks as its text.

    Half a pair of surrogates, which no file can hold, is U+FFFD.
    """
    written = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return _SURROGATE.sub("\ufffd", written)


def user_columns(
    columns: Iterable[str], taken: Collection[str] = DOCUMENT_COLUMNS
) -> dict[str, str]:
    """Return what each of the user's columns is called beside others, no two alike.

    Parameters
    ----------
    columns
        The user's.
    taken
        Names of the others; a column of such a name has ``user.`` before it.
    """
    names: dict[str, str] = {}
    for column in dict.fromkeys(columns):
        name = column
        while name in taken or name in names.values():
            name = f"user.{name}"
        names[column] = name
    return names


def user_kind(value: Any) -> str:
    """Return what a value of a user's column is: a word for its type."""
    if value is None:
        return "null"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return "text"
    return {bool: "bool", int: "int", float: "float"}.get(type(value), "text")


def user_type(kinds: Set[str]) -> pa.DataType:
    """Return the one type for values of several kinds, text where they do not go together."""
    known = kinds - {"null"}
    if known == {"bool"}:
        return pa.bool_()
    if known == {"int"}:
        return pa.int64()
    if known and known <= {"int", "float"}:
        return pa.float64()
    return pa.string()


def as_user_type(value: Any, kind: pa.DataType) -> Any:
    """Return a value of a user's column as its type holds it."""
    if value is None:
        return None
    if kind == pa.string():
        return value if isinstance(value, str) else as_json(value)
    return float(value) if kind == pa.float64() else value


def check_format(found: Mapping[str, Any], name: str) -> None:
    """Check that a file is of a format that is known here.

    Raises
    ------
    StoreError
        Names the format, and the one that is known.
    """
    if found.get("format") != FORMAT:
        raise StoreError(
            f"{name} has corpus format {found.get('format')!r:.80}; this version of skipviz reads "
            f"format {FORMAT}. Open it with the version that wrote it, or run the corpus again."
        )
