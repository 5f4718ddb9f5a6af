"""Turns traces that were made one by one, here or elsewhere, into a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import (
    FORMAT,
    OWN_COLUMNS,
    TOKENS_FOLDER,
    as_json,
    part_file,
    part_name,
)
from skipviz.corpus.inputs import Entry
from skipviz.corpus.parts import Part
from skipviz.corpus.rows import parquet_bytes, token_table
from skipviz.corpus.summaries import CorpusSummary
from skipviz.corpus.work import PartResult
from skipviz.corpus.writer import CorpusWriter
from skipviz.errors import TraceError
from skipviz.home import sha256_of
from skipviz.parquet import MOST_FILE_BYTES, check_regular_file
from skipviz.progress import Progress, no_progress
from skipviz.recording.recorded_file import open_recording
from skipviz.text.arguments import checked
from skipviz.traces import Trace

OF_A_TEXT = ("window", "window_overlap")
"""Fields of ``run`` that depend on how long a text was."""


@checked
def import_corpus(
    traces: Sequence[str | Path], *, out: str | Path, progress: Progress = no_progress
) -> CorpusSummary:
    """Turn traces of one model into a dataset, each sequence a document.

    Parameters
    ----------
    traces
        Files that ``Trace.save`` wrote, as of imported patterns, or recordings as
        ``recorder_kit.py`` writes them. Each becomes a part.
    out
        Folder of the dataset, or an address.
    progress
        Called with the share of the files that are done.

    Returns
    -------
    CorpusSummary
        What the dataset holds.

    Raises
    ------
    TraceError
        If a file is no trace, or one of another model, policy or budget than the first, or a plan
        decided in it.
    InputError
        If the folder is of other traces, or cannot be written.

    Examples
    --------
    >>> trace.save(tmp / "fox.parquet")
    >>> skipviz.import_corpus([tmp / "fox.parquet"], out=tmp / "imported").documents
    1
    """
    folder = DatasetFolder(out)
    with folder.held():
        writer = CorpusWriter(folder)
        about: dict[str, Any] | None = None
        first = 0
        for part in _files(traces):
            for missing in writer.missing([part]):
                path = Path(missing.entries[0].source)
                trace = _read(path)
                about = about or writer.about or _about(trace)
                _check_alike(path, about, _about(trace))
                writer.take(_result(part, trace, folder, about, first=first))
            about = about or writer.about
            first += writer.documents_in(part)
            progress((part.number + 1) / len(traces))
        return writer.finish()


def _files(traces: Sequence[str | Path]) -> Iterator[Part]:
    """Yield a part for each file, named by its bytes."""
    for number, path in enumerate(map(Path, traces)):
        try:
            check_regular_file(path)
            size = path.stat().st_size
            if size > MOST_FILE_BYTES:
                raise TraceError(
                    f"{path} has {size:,} bytes, more than {MOST_FILE_BYTES:,}. Record the texts "
                    "in several files."
                )
            digest = sha256_of(path)
        except OSError as error:
            raise TraceError(f"{path} cannot be read ({error.strerror or error}).") from error
        yield Part(
            number=number,
            name=part_name(number, [digest]),
            first=0,
            entries=(Entry(source=str(path), document=None, sha256=digest),),
            before=number / len(traces),
            share=(number + 1) / len(traces),
        )


def _read(path: Path) -> Trace:
    with path.open("rb") as file:
        saved = file.read(4) == b"PAR1"
    trace = Trace.load(path) if saved else open_recording(path)[0]
    if not len(trace):
        raise TraceError(f"{path} has no tokens.")
    if trace.matrix("forced").any():
        raise TraceError(
            f"{path} has decisions that a plan forced; a dataset keeps what a model decided."
        )
    return trace


def _about(trace: Trace) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run": trace.run.row(0, named=True),
        "sites": trace.sites.to_dicts(),
        "part_characters": None,
        "bos": None,
        "analyses": [],
    }


def _check_alike(path: Path, about: dict[str, Any], own: dict[str, Any]) -> None:
    for name, value in own["run"].items():
        if name not in OF_A_TEXT and about["run"].get(name) != value:
            raise TraceError(
                f"{path} is of {name}={value!r:.80} and the traces before of "
                f"{about['run'].get(name)!r:.80}. Make a dataset of each."
            )
    if about["sites"] != own["sites"]:
        raise TraceError(f"{path} has other sites than the traces before. Make a dataset of each.")


def _result(
    part: Part, trace: Trace, folder: DatasetFolder, about: dict[str, Any], *, first: int
) -> PartResult:
    sequence = np.unique(trace.tokens["sequence"].to_numpy(), return_inverse=True)[1]
    rows = parquet_bytes(token_table(trace, first + sequence.astype(np.int64)))
    path = part_file(TOKENS_FOLDER, part.name)
    tokens = trace.tokens.with_columns(pl.Series("document", sequence))
    return PartResult(
        number=part.number,
        name=part.name,
        share=part.share,
        about=about,
        staged=(folder.stage(path, rows, rows=len(trace)),),
        documents=tuple(
            _document(first + int(number), own) for (number,), own in _by_document(tokens)
        ),
    )


def _by_document(tokens: pl.DataFrame) -> Iterator[tuple[tuple[Any, ...], pl.DataFrame]]:
    yield from tokens.group_by("document", maintain_order=True)


def _document(number: int, tokens: pl.DataFrame) -> dict[str, Any]:
    # Tokens that share characters have them all, each.
    text = "".join(tokens.unique("span", keep="first", maintain_order=True)["text"])
    return {
        "document": number,
        "source": tokens["source"][0],
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        "characters": len(text),
        "tokens": tokens.height,
        "error": None,
        OWN_COLUMNS: as_json({}),
    }
