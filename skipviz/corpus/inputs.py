"""Documents out of files, one after the other: of a file of any size, one document is in memory."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skipviz.corpus.format import as_json
from skipviz.corpus.sources import Source, opened
from skipviz.errors import InputError, TextError
from skipviz.text.documents import Document, check_text, decode, read_row

MOST_DOCUMENT_BYTES = 32 << 20
"""Of one document on disk."""
MOST_DOCUMENT_CHARACTERS = 5_000_000
"""Of one document: some 1.2 million tokens, whose decisions are in memory at once."""
ROWS_AT_ONCE = 256
"""Of a Parquet file."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One document of the input, or what is wrong with it.

    Attributes
    ----------
    source
        Its file, with ``:LINE`` behind it for a row of one.
    document
        None where it cannot be read.
    sha256
        Of its text in UTF-8, or of its messages as JSON; else of what could not be read; None
        where nothing was read.
    columns
        What else the row has.
    error
        What is wrong, a sentence.
    """

    source: str
    document: Document | None
    sha256: str | None
    columns: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def content(self) -> str:
        """What tells it from another document, wherever its file lies."""
        return f"{self.sha256} {as_json(self.columns) if self.columns else ''}"


Told = Callable[[int], None]
"""Takes the bytes of a file that have been read, as they lie on disk."""


def entries_of(source: Source, *, text_column: str, tell: Told) -> Iterator[Entry]:
    """Yield the documents of a file.

    Parameters
    ----------
    source
        The file.
    text_column
        The column, or field of JSON Lines, that holds the text.
    tell
        Called with the bytes read, before each document and at the end.

    Raises
    ------
    InputError
        If the file cannot be read for reasons that lie with the machine.
    """
    read = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}.get(
        source.kind, _whole
    )
    try:
        with opened(source) as (unpacked, raw):
            for entry in read(source, unpacked, text_column):
                if source.size is not None:
                    tell(min(raw.tell(), source.size))
                yield entry
    except PermissionError as error:
        yield _unreadable(source, error.strerror or str(error))
    except OSError as error:
        if error.errno is not None:
            raise InputError(
                f"{source.name} cannot be read ({error.strerror}). Check its disk, and run the "
                "same command again: it goes on."
            ) from error
        # Of damaged compression, Arrow says it without a number.
        yield _unreadable(source, str(error).partition("\n")[0])
    except pa.ArrowException as error:
        yield _unreadable(source, str(error).partition("\n")[0])
    if source.size is not None:
        tell(source.size)


def _whole(source: Source, file: Any, _: str) -> Iterator[Entry]:
    data = file.read(MOST_DOCUMENT_BYTES + 1)
    digest = hashlib.sha256(data).hexdigest()
    if len(data) > MOST_DOCUMENT_BYTES:
        yield _wrong(source.name, digest, _too_long(source.name, f"{MOST_DOCUMENT_BYTES:,} bytes"))
        return
    try:
        text, encoding = decode(data, source=source.name)
    except TextError as error:
        yield _wrong(source.name, digest, str(error))
        return
    yield _entry(Document(source.name, text, encoding), {})


def _json_lines(source: Source, file: Any, text_column: str) -> Iterator[Entry]:
    for number, line in _lines(source, file):
        if isinstance(line, Entry):
            yield line
            return
        if not line.strip():
            continue
        digest = hashlib.sha256(line).hexdigest()
        where = f"{source.name}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"{source.name}, line {number} is not UTF-8 (byte {error.start + 1:,})."
            yield _wrong(where, digest, f"{what} Save the file as UTF-8.")
            continue
        try:
            document, columns = read_row(
                text, name=source.name, number=number, chat=True, text_field=text_column
            )
        except TextError as error:
            yield _wrong(where, digest, str(error), _rest(text, text_column))
            continue
        yield _entry(document, columns)


def _rest(line: str, text_column: str) -> dict[str, Any]:
    """Return what a row whose text is no text has besides."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    named = isinstance(row, dict)
    return {name: row[name] for name in row if name != text_column} if named else {}


def _lines(source: Source, file: Any) -> Iterator[tuple[int, bytes | Entry]]:
    """Yield number and content of each line; in the place of one that is too long, an error."""
    for number in itertools.count(1):
        line = file.readline(MOST_DOCUMENT_BYTES + 1)
        if not line:
            return
        if len(line) > MOST_DOCUMENT_BYTES:
            what = f"{source.name}, line {number}"
            wrong = (
                f"{_too_long(what, f'{MOST_DOCUMENT_BYTES:,} bytes')} No line after it was read."
            )
            yield number, _wrong(f"{source.name}:{number}", hashlib.sha256(line).hexdigest(), wrong)
            return
        yield number, line


def _csv_rows(source: Source, file: Any, text_column: str) -> Iterator[Entry]:
    csv.field_size_limit(MOST_DOCUMENT_BYTES)
    wrong: list[Entry] = []

    def lines() -> Iterator[str]:
        for number, line in _lines(source, file):
            if isinstance(line, Entry):
                wrong.append(line)
                return
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")

    rows = csv.reader(lines(), strict=True)
    try:
        header = next(rows, [])
        if text_column not in header:
            yield _unreadable(source, _no_column(text_column, header))
            return
        if twice := _twice(header):
            yield _unreadable(source, twice)
            return
        place = header.index(text_column)
        for row in rows:
            if not row:
                continue
            where = f"{source.name}:{rows.line_num}"
            digest = hashlib.sha256("\0".join(row).encode()).hexdigest()
            if len(row) != len(header):
                what = f"{where} has {len(row)} values; the header names {len(header)} columns."
                yield _wrong(where, digest, what)
                continue
            columns = {name: row[i] for i, name in enumerate(header) if i != place}
            yield _entry(Document(where, row[place]), columns)
    except (csv.Error, UnicodeDecodeError) as error:
        what = (
            f"{source.name} cannot be read as CSV in UTF-8 behind line {rows.line_num} ({error})."
        )
        yield _wrong(source.name, None, what)
    yield from wrong


def _parquet_rows(source: Source, file: Any, text_column: str) -> Iterator[Entry]:
    if source.packed is not None or source.size is None:
        yield _unreadable(source, "a Parquet file is packed already, and read from a disk")
        return
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        yield _unreadable(source, f"not a Parquet file: {error!s:.200}")
        return
    names = parquet.schema_arrow.names
    if twice := _twice(names):
        yield _unreadable(source, twice)
        return
    kind = parquet.schema_arrow.field(text_column).type if text_column in names else None
    if kind is None or not _is_text(kind):
        found = (
            _no_column(text_column, names) if kind is None else f"{text_column} is of type {kind}"
        )
        yield _unreadable(source, found)
        return
    number = 0
    for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
        for row in _rows_of(batch):
            number += 1
            where = f"{source.name}:{number}"
            if isinstance(row, str):
                yield _wrong(where, None, f"{where} cannot be read ({row:.200}).")
                continue
            text = row.pop(text_column)
            yield _entry(Document(where, text or ""), row)


def _is_text(kind: pa.DataType) -> bool:
    """Return whether values of a type are texts, each stored by itself or once for many rows."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _rows_of(batch: pa.RecordBatch) -> Sequence[dict[str, Any] | str]:
    """Return rows of a Parquet file; of one with a value that Python has no way to hold, why.

    Such as a text that is not UTF-8, or a date beyond the year 9999.
    """
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if batch.num_rows == 1:
            return [str(error)]
        return [row for place in range(batch.num_rows) for row in _rows_of(batch.slice(place, 1))]
    return rows


def _entry(document: Document, columns: Mapping[str, Any]) -> Entry:
    """Return a document that can be traced, or why it cannot be."""
    said = as_json(document.messages) if document.messages else document.text
    digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
    wrong = None
    if document.characters > MOST_DOCUMENT_CHARACTERS:
        wrong = _too_long(document.source, f"{MOST_DOCUMENT_CHARACTERS:,} characters")
    elif not document.messages:
        try:
            check_text(document.text)
        except TextError as error:
            wrong = f"{document.source}: {error}"
    return Entry(
        source=document.source,
        document=None if wrong else document,
        sha256=digest,
        columns=columns,
        error=wrong,
    )


def _wrong(
    source: str, digest: str | None, error: str, columns: Mapping[str, Any] | None = None
) -> Entry:
    return Entry(source=source, document=None, sha256=digest, error=error, columns=columns or {})


def _unreadable(source: Source, why: str) -> Entry:
    return _wrong(source.name, None, f"{source.name} cannot be read ({why}).")


def _too_long(what: str, most: str) -> str:
    return f"{what} has more than {most}. Split it."


def _no_column(wanted: str, names: list[str]) -> str:
    listed = ", ".join(f'"{name:.40}"' for name in names[:8])
    return f'there is no column "{wanted}" for the text; there are {listed or "none"}'


def _twice(names: Sequence[str]) -> str:
    """Return what is wrong if two columns have one name, of which one would be lost."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 1)
    return f'there are {count} columns "{name:.40}"; give each a name of its own' * (count > 1)


def sizes(sources: Iterator[Source]) -> int | None:
    """Return the bytes of all files together; None where that is not known."""
    total = 0
    for source in sources:
        if source.size is None:
            return None
        total += source.size
    return total
