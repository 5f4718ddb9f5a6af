"""The one that writes a dataset: which parts are done, what becomes one, and the end of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skipviz.corpus.done import done_parts, read_done
from skipviz.corpus.folder import DatasetFolder, Staged
from skipviz.corpus.format import (
    CORPUS_FILE,
    DOCUMENT_COLUMNS,
    DOCUMENTS_FILE,
    DONE_FOLDER,
    FORMAT,
    MANIFEST_FILE,
    METADATA_KEY,
    OWN_COLUMNS,
    TOKENS_FOLDER,
    as_user_type,
    check_format,
    done_schema,
    part_file,
    part_number,
    user_columns,
    user_kind,
    user_type,
)
from skipviz.corpus.parts import Part
from skipviz.corpus.summaries import CorpusSummary
from skipviz.corpus.work import PartResult
from skipviz.errors import InputError

MOST_ERRORS_AT_FIRST = 100
"""Documents that may fail before one was traced; then the run stops, and nothing is written."""


class CorpusWriter:
    """Writes a dataset, and knows which of its parts are done.

    Parameters
    ----------
    folder
        The dataset, held by this run.

    Raises
    ------
    StoreError
        If what is there is damaged, or of another format.
    """

    def __init__(self, folder: DatasetFolder) -> None:
        self._folder = folder
        self._about = folder.read_json(CORPUS_FILE)
        if self._about is not None:
            check_format(self._about, folder.named(CORPUS_FILE))
        self._sweep()
        self._done = {part_number(name): name for name in done_parts(folder)}
        self._finished = folder.exists(MANIFEST_FILE)
        self._waiting: list[PartResult] = []
        self._parts = 0

    @property
    def begun(self) -> bool:
        """Whether anything was done before, or is by now."""
        return self._about is not None

    @property
    def about(self) -> dict[str, Any] | None:
        """What ``corpus.json`` says; None where nothing was begun."""
        return self._about

    def documents_in(self, part: Part) -> int:
        """Return how many documents a part that is done has."""
        return int(read_done(self._folder, part.name)[0].num_rows)

    def check_same(self, about: Mapping[str, Any]) -> None:
        """Check that what runs is what the dataset was begun with.

        Raises
        ------
        InputError
            Names what differs.
        """
        if self._about is None or self._about == about:
            return
        for name, was, now in _differences(self._about, about):
            raise InputError(
                f"{self._folder.called} was begun with {name}={was!r:.80}; this is {now!r:.80}. "
                "Run it as it was begun, or name another folder."
            )

    def missing(self, parts: Iterable[Part]) -> Iterator[Part]:
        """Yield the parts that are not done.

        Raises
        ------
        InputError
            If a part that is done is of another input.
        """
        for part in parts:
            known = self._done.get(part.number)
            if known not in (None, part.name):
                raise InputError(
                    f"{self._folder.called} holds other documents: those from number "
                    f"{part.first:,} on ({part.entries[0].source}) are not what they were when it "
                    "was begun. Give the same input, or name another folder."
                )
            self._parts = part.number + 1
            if known is None:
                yield part

    def take(self, result: PartResult) -> None:
        """Make a part that has been worked on one that is done; a second time, nothing happens.

        Raises
        ------
        InputError
            If it was worked on by another model, cannot be written, or nothing can be traced.
        """
        if result.number in self._done:
            self.drop(result.staged)
            return
        self.check_same(result.about)
        if not self.begun and not result.tokens:
            self._waiting.append(result)
            errors = [error for each in self._waiting for error in each.errors]
            if len(errors) >= MOST_ERRORS_AT_FIRST:
                raise InputError(
                    f"None of the first {len(errors)} documents can be traced. {errors[0]}"
                )
            return
        if not self.begun:
            self._folder.write_json(CORPUS_FILE, result.about)
            self._about = result.about
        for each in (*self._waiting, result):
            self._commit(each)
        self._waiting.clear()

    def drop(self, staged: Iterable[Staged]) -> None:
        """Delete files that are not needed."""
        for each in staged:
            self._folder.remove(each.under)

    def finish(self) -> CorpusSummary:
        """Write the documents' table and the manifest, once all parts are done.

        Raises
        ------
        InputError
            If nothing was traced, or the dataset holds more than the input.
        """
        if not self.begun:
            errors = [error for each in self._waiting for error in each.errors]
            raise InputError(
                f"Nothing was traced: {errors[0]}" if errors else "The input holds no document."
            )
        extra = [name for number, name in self._done.items() if number >= self._parts]
        if extra:
            raise InputError(
                f"{self._folder.called} holds {len(extra)} parts more than the input has. Give the "
                "whole input, or name another folder."
            )
        self._sweep()  # what a worker wrote that was lost before it said so
        return finish_dataset(self._folder)

    def _sweep(self) -> None:
        """Delete files that were written and never got a name."""
        further = [] if self._about is None else self._about["analyses"]
        for each in (DONE_FOLDER, TOKENS_FOLDER, *further, ""):
            self._folder.sweep(each)

    def _commit(self, result: PartResult) -> None:
        if self._finished:  # what is added to is not, though it was
            self._folder.remove(MANIFEST_FILE)
            self._finished = False
        for staged in result.staged:
            self._folder.commit(staged)
        table = pa.Table.from_pylist(list(result.documents), schema=done_schema())
        about = {"format": FORMAT, "files": [staged.file.listed() for staged in result.staged]}
        path = part_file(DONE_FOLDER, result.name)
        with self._folder.staging(path) as file:
            pq.write_table(
                table.replace_schema_metadata({METADATA_KEY: json.dumps(about)}),
                file,
                compression="zstd",
            )
        self._folder.commit(file.staged(table.num_rows))
        self._done[result.number] = result.name


def finish_dataset(folder: DatasetFolder) -> CorpusSummary:
    """Write ``documents.parquet`` and then the manifest of a dataset whose parts are all done.

    Each part's documents are read twice, for the types of the user's columns and for the rows, so
    that no more than those of one part are in memory.
    """
    names = done_parts(folder)
    kinds: dict[str, set[str]] = {}
    files: list[dict[str, Any]] = []
    for name in names:
        table, about = read_done(folder, name)
        files += about["files"]
        for text in table[OWN_COLUMNS].to_pylist():
            for column, value in json.loads(text).items():
                kinds.setdefault(column, set()).add(user_kind(value))
    types = {column: user_type(found) for column, found in kinds.items()}
    own = user_columns(types)
    schema = pa.schema(
        [*DOCUMENT_COLUMNS.items(), *((own[column], kind) for column, kind in types.items())]
    )
    documents = failed = tokens = 0
    with (
        folder.staging(DOCUMENTS_FILE) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for name in names:
            rows = read_done(folder, name)[0].to_pylist()
            documents += len(rows)
            failed += sum(row["error"] is not None for row in rows)
            tokens += sum(row["tokens"] for row in rows)
            for row in rows:
                given = json.loads(row.pop(OWN_COLUMNS))
                row |= {
                    own[column]: as_user_type(given.get(column), kind)
                    for column, kind in types.items()
                }
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    staged = file.staged(documents)
    folder.commit(staged)
    sites = len((folder.read_json(CORPUS_FILE) or {}).get("sites", []))
    folder.write_json(
        MANIFEST_FILE,
        {
            "format": FORMAT,
            "documents": documents,
            "failed": failed,
            "tokens": tokens,
            "decisions": tokens * sites,
            "columns": [
                {"name": column, "column": own[column], "type": str(kind)}
                for column, kind in types.items()
            ],
            "files": [*files, staged.file.listed()],
        },
    )
    return CorpusSummary(
        documents=documents,
        failed=failed,
        tokens=tokens,
        decisions=tokens * sites,
        parts=len(names),
    )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*was, *now]):
        before, after = was.get(name), now.get(name)
        if name == "run" and isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after)
        elif before != after:
            yield name, before, after
