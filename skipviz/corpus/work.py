"""What is done with a part, by whichever engine: its documents are traced and its files written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from skipviz.corpus.analyses import analysis_table
from skipviz.corpus.folder import DatasetFolder, Staged
from skipviz.corpus.format import FORMAT, OWN_COLUMNS, TOKENS_FOLDER, as_json, part_file
from skipviz.corpus.inputs import Entry
from skipviz.corpus.parts import Part
from skipviz.corpus.rows import parquet_bytes, token_table
from skipviz.errors import InputError, SkipvizError, Stopped
from skipviz.families.powers import CanDraw, traits_of
from skipviz.models import SkipModel
from skipviz.models.hashes import memory_sha256
from skipviz.progress import Progress, no_progress
from skipviz.recording.build import run_provenance
from skipviz.recording.tracing import trace
from skipviz.schema import site_frame
from skipviz.text.documents import Document
from skipviz.traces import Trace


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """What is chosen for a whole corpus, and stays.

    Attributes
    ----------
    part_characters
        Characters that end a part.
    bos
        Whether texts begin with the begin-of-sequence token; None: as the tokenizer does.
    analyses
        Further tables.
    """

    part_characters: int
    bos: bool | None = None
    analyses: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What became of a part.

    Attributes
    ----------
    number, name, share
        As of the part.
    about
        What ``corpus.json`` says of the model that ran.
    staged
        Its files, which have no names yet.
    documents
        Rows of its file in ``done``.
    """

    number: int
    name: str
    share: float | None
    about: dict[str, Any]
    staged: tuple[Staged, ...]
    documents: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def tokens(self) -> int:
        """How many were traced."""
        return sum(row["tokens"] for row in self.documents)

    @property
    def errors(self) -> list[str]:
        """Of documents that could not be traced."""
        return [row["error"] for row in self.documents if row["error"] is not None]


def about_corpus(model: SkipModel, settings: CorpusSettings) -> dict[str, Any]:
    """Return what ``corpus.json`` says: what runs, and how."""
    sites = model.family.sites(model.model)
    drawn = any(site.rule == "sample" for site in sites)
    row = run_provenance(
        model,
        policy=model.policy,
        window=model.context,
        window_overlap=model.context // 2,
        seed=0 if drawn else None,
    )
    # Of a model in memory no file says which it is, and a run that goes on must know.
    row["weights_sha256"] = row["weights_sha256"] or memory_sha256(model)
    return {
        "format": FORMAT,
        "run": row,
        "sites": site_frame(sites).to_dicts(),
        "part_characters": settings.part_characters,
        "bos": settings.bos,
        "analyses": list(settings.analyses),
    }


def done_part(
    model: SkipModel,
    part: Part,
    folder: DatasetFolder,
    settings: CorpusSettings,
    *,
    about: dict[str, Any],
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> PartResult:
    """Trace the documents of a part and write its files, under names of their own.

    Parameters
    ----------
    model, part, settings
        What runs over what, and how.
    folder
        Where files are written.
    about
        What ``about_corpus`` said.
    progress
        Called with the share of the part that is done.
    stop
        Set it from another thread to stop.

    Raises
    ------
    Stopped
        If ``stop`` was set.
    InputError
        If a file cannot be written.
    """
    places = [i for i, entry in enumerate(part.entries) if entry.document is not None]
    documents = [part.entries[i].document for i in places]
    tables: dict[str, list[pa.Table]] = {}
    sizes, errors = dict.fromkeys(range(len(part.entries)), 0), {}
    for some, traced in _traced(model, documents, settings, progress, stop):
        own = [places[i] for i in some]
        if isinstance(traced, str):
            errors[own[0]] = traced
            continue
        sequence = traced.tokens["sequence"].to_numpy()
        sizes |= dict(zip(own, np.bincount(sequence, minlength=len(own)).tolist(), strict=True))
        document = part.first + np.array(own, dtype=np.int64)[sequence]
        tables.setdefault(TOKENS_FOLDER, []).append(token_table(traced, document))
        for name in settings.analyses:
            found = analysis_table(name, model, traced, document, stop=stop)
            tables.setdefault(name, []).append(found)
    staged = []
    for name, each in tables.items():
        rows = pa.concat_tables(each).combine_chunks()
        path = part_file(name, part.name)
        staged.append(folder.stage(path, parquet_bytes(rows), rows=rows.num_rows))
    return PartResult(
        number=part.number,
        name=part.name,
        share=part.share,
        about=about,
        staged=tuple(staged),
        documents=tuple(
            _document_row(part.first + i, entry, tokens=sizes[i], error=errors.get(i))
            for i, entry in enumerate(part.entries)
        ),
    )


def _document_row(document: int, entry: Entry, *, tokens: int, error: str | None) -> dict[str, Any]:
    return {
        "document": document,
        "source": entry.source,
        "sha256": entry.sha256,
        "characters": 0 if entry.document is None else entry.document.characters,
        "tokens": tokens,
        "error": entry.error if entry.document is None else error,
        OWN_COLUMNS: as_json(entry.columns),
    }


def _traced(
    model: SkipModel,
    documents: Sequence[Any],
    settings: CorpusSettings,
    progress: Progress,
    stop: threading.Event | None,
) -> Iterator[tuple[list[int], Trace | str]]:
    """Yield documents, by their places, with the trace of them; or one with what is wrong.

    Texts share batches where the family decides them in a batch as alone. Where chance plays a
    part, each document begins at the seed, as when it is traced by itself.
    """
    drawn = isinstance(model.family, CanDraw) and model.family.seed(model.model) is not None
    sampled = any(site.rule == "sample" for site in model.family.sites(model.model))
    together = traits_of(model.family, model.model).batchable and not (sampled and not drawn)
    groups = [list(range(len(documents)))] if together else [[i] for i in range(len(documents))]
    total = max(1, sum(document.characters for document in documents))
    done = 0
    pending = [group for group in reversed(groups) if group]
    while pending:
        group = pending.pop()
        texts: list[Document] = [documents[i] for i in group]
        size = sum(document.characters for document in texts)

        def advance(share: float, done: int = done, size: int = size) -> None:
            progress((done + share * size) / total)

        found = _tried(model, texts, settings, advance, stop)
        if isinstance(found, str) and len(group) > 1:
            # One of them cannot be traced; halves say which.
            half = len(group) // 2
            pending += [group[half:], group[:half]]
            continue
        done += size
        yield group, found


def _tried(
    model: SkipModel,
    texts: list[Document],
    settings: CorpusSettings,
    progress: Progress,
    stop: threading.Event | None,
) -> Trace | str:
    try:
        return trace(model, texts, bos=settings.bos, progress=progress, stop=stop)
    except Stopped:
        raise
    except SkipvizError as error:
        return str(error)
    # Whatever a tokenizer, a template or a layer makes of one text, the others go on.
    except Exception as error:
        if len(texts) == 1:
            _check_model(model, error)
        return f"It cannot be traced ({type(error).__name__}: {error!s:.300})."


def _check_model(model: SkipModel, met: Exception) -> None:
    """Raise ``InputError`` if no text can be traced by now, as on a GPU that has failed."""
    try:
        trace(model, [Document("trial", "A fox.")])
    except Exception as error:
        raise InputError(
            f"No text can be traced ({type(met).__name__}: {met!s:.300}). See to the model and the "
            "machine, and run the same command again: it goes on."
        ) from error
