"""A corpus that is open: its tables as lazy frames, its documents as traces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from skipviz.arrays import Ints
from skipviz.corpus.done import done_parts, read_done
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import (
    CORPUS_FILE,
    DOCUMENT_COLUMNS,
    DOCUMENTS_FILE,
    MANIFEST_FILE,
    OWN_COLUMNS,
    PART_NAME,
    TOKENS_FOLDER,
    as_user_type,
    check_format,
    part_file,
    part_number,
    score_column,
    token_schema,
    user_columns,
    user_kind,
    user_type,
)
from skipviz.corpus.reading.as_trace import run_table, sites_table, trace_of_rows
from skipviz.corpus.verifying import damaged_files
from skipviz.errors import InputError, StoreError
from skipviz.invariants import check_run, check_sites
from skipviz.parquet import one_kind_of_error
from skipviz.progress import check_seed
from skipviz.text.arguments import checked
from skipviz.traces import Trace

STEP_TOKENS = 4_000_000
"""Tokens that a question over all of a corpus looks at together, at most but for one part."""
SAMPLE_TOKENS = 20_000
IF_DAMAGED = "Run skipviz corpus verify on it to see which file is damaged."


@checked
def open_corpus(where: str | Path) -> CorpusDataset:
    """Open a dataset that ``skipviz corpus run`` wrote; nothing is loaded that is not asked for.

    One whose run has not ended is opened as well: with the parts that are complete.

    Parameters
    ----------
    where
        Its folder, or an address such as ``s3://bucket/folder``.

    Returns
    -------
    CorpusDataset
        Its tables as lazy frames, its documents as traces.

    Raises
    ------
    StoreError
        If there is no dataset, or one of a format that this version does not read.

    Examples
    --------
    >>> _ = (tmp / "asked.jsonl").write_text('{"text": "The fox runs.", "domain": "animals"}')
    >>> _ = skipviz.trace_corpus(model, tmp / "asked.jsonl", out=tmp / "asked")
    >>> corpus = skipviz.open_corpus(tmp / "asked")
    >>> corpus.tokens().join(corpus.documents(), on="document").select("domain").collect().height
    9
    >>> corpus.trace(0).sites.equals(corpus.sites)
    True
    """
    return opened_folder(DatasetFolder(where))


def opened_folder(folder: DatasetFolder) -> CorpusDataset:
    """Return the dataset of a folder, as ``open_corpus`` does.

    Raises
    ------
    StoreError
        As of ``open_corpus``; it calls the folder what the folder is called.
    """
    about = folder.read_json(CORPUS_FILE)
    if about is None:
        raise StoreError(
            f"{folder.called} is not a corpus: it has no {CORPUS_FILE}. Give a folder that skipviz "
            "corpus run wrote, or wait until its first part is complete."
        )
    check_format(about, folder.named(CORPUS_FILE))
    manifest = folder.read_json(MANIFEST_FILE)
    if manifest is not None:
        check_format(manifest, folder.named(MANIFEST_FILE))
    with one_kind_of_error(folder.called, "a corpus", IF_DAMAGED, private=folder.private):
        run, sites = run_table(about), sites_table(about)
        check_run(run)
        check_sites(sites, layers=run["layers"].item())
        files, documents = _unfinished(folder) if manifest is None else (manifest["files"], None)
        rows = {str(each["path"]): int(each["rows"]) for each in files}
        names = [Path(path).stem for path in rows if path.startswith(f"{TOKENS_FOLDER}/")]
        names = sorted((name for name in names if PART_NAME.fullmatch(name)), key=part_number)
        return CorpusDataset(
            where=folder.where,
            run=run,
            sites=sites,
            complete=manifest is not None,
            parts={name: rows[part_file(TOKENS_FOLDER, name)] for name in names},
            analyses=tuple(about.get("analyses") or ()),
            _folder=folder,
            _documents=documents,
        )


@dataclass(frozen=True, eq=False)
class CorpusDataset:
    r"""A corpus on disk.

    Attributes
    ----------
    where
        Its folder or address.
    run
        One row of provenance, as of a trace (``skipviz.schema.RUN``).
    sites
        One row per site, in the order in which sites run (``skipviz.schema.SITES``).
    complete
        Whether the run that wrote it has ended; if not, there are the parts that are done.
    parts
        Tokens of each part, by its name.
    analyses
        Further tables that it has: ``audit``, ``lens``.

    Examples
    --------
    >>> _ = (tmp / "two.jsonl").write_text('{"text": "A fox.", "year": 1}\n{"text": "A dog."}')
    >>> _ = skipviz.trace_corpus(model, tmp / "two.jsonl", out=tmp / "two")
    >>> corpus = skipviz.open_corpus(tmp / "two")
    >>> corpus
    CorpusDataset(2 documents, 8 tokens, 8 sites, model='...tiny-gated', columns=['year'])
    >>> corpus.decisions(sites=["L1.mlp"]).collect().columns
    ['document', 'position', 'label', 'executed', 'score']
    >>> corpus.sample(tokens=10, seed=0).trace.tokens["source"].n_unique()
    2
    """

    where: str
    run: pl.DataFrame
    sites: pl.DataFrame
    complete: bool
    parts: dict[str, int]
    analyses: tuple[str, ...]
    _folder: DatasetFolder = field(repr=False)
    _documents: pl.DataFrame | None = field(repr=False)

    def __post_init__(self) -> None:
        there = self._folder.names(TOKENS_FOLDER)
        if missing := [name for name in self.parts if f"{name}.parquet" not in there]:
            raise StoreError(
                f"{self.called} lacks {part_file(TOKENS_FOLDER, missing[0])}, which it lists. "
                "Delete the part's file in done and run the same command again: the part is made "
                "anew."
            )

    def __len__(self) -> int:
        """Return the number of tokens."""
        return sum(self.parts.values())

    def __repr__(self) -> str:
        ended = "" if self.complete else ", not finished"
        return (
            f"CorpusDataset({self.document_count:,} documents, {len(self):,} tokens, "
            f"{self.sites.height} sites, model={self.run['model'][0]!r}, "
            f"columns={self.columns!r:.200}{ended})"
        )

    @property
    def called(self) -> str:
        """What errors call it."""
        return self._folder.called

    @property
    def labels(self) -> list[str]:
        """Labels of the sites, each the name of a column of ``tokens``."""
        return self.sites["label"].to_list()

    @cached_property
    def columns(self) -> list[str]:
        """The user's own columns of ``documents``."""
        names = self.documents().collect_schema().names()
        return [name for name in names if name not in DOCUMENT_COLUMNS]

    @cached_property
    def document_count(self) -> int:
        """Documents, those that failed among them."""
        return int(self.collect(self.documents().select(pl.len())).item())

    @cached_property
    def failed_count(self) -> int:
        """Documents that could not be traced."""
        failed = pl.col("error").is_not_null().sum()
        return int(self.collect(self.documents().select(failed)).item())

    def tokens(self) -> pl.LazyFrame:
        """Return a lazy frame with a row per token, as docs/corpus_format.md describes it."""
        return self._scan(TOKENS_FOLDER, list(self.parts))

    def documents(self) -> pl.LazyFrame:
        """Return a lazy frame with a row per document, and the user's columns."""
        if self._documents is not None:
            return self._documents.lazy()
        with self._reading():
            return pl.scan_parquet(self._folder.path(DOCUMENTS_FILE), glob=False)

    def further(self, table: str) -> pl.LazyFrame:
        """Return a further table: a row per token, in the order of ``tokens``.

        Parameters
        ----------
        table
            ``audit`` or ``lens``, if the corpus has it.

        Raises
        ------
        InputError
            If it has not.
        """
        if table not in self.analyses:
            known = ", ".join(self.analyses) or "none"
            raise InputError(
                f"{self.called} has no table {table!r:.40}; it has {known}. Run the corpus with "
                f"--analyses {table} into another folder."
            )
        return self._scan(table, list(self.parts))

    def decisions(self, sites: Sequence[str] | None = None) -> pl.LazyFrame:
        """Return the long table as a view: a row per gate decision, made while it is read.

        Parameters
        ----------
        sites
            Labels of the sites that are wanted; only their columns are read. None: all.

        Returns
        -------
        pl.LazyFrame
            ``document``, ``position``; ``label`` of the site; ``executed``, and ``score`` on the
            gate's own scale, null where there was none.

        Raises
        ------
        InputError
            If there is no such site.
        """
        wanted = self.labels if sites is None else list(sites)
        self.check_sites(wanted)
        each = [
            pl.struct(
                executed=pl.col(label), score=pl.col(score_column(label)).cast(pl.Float32)
            ).alias(label)
            for label in wanted
        ]
        return (
            self.tokens()
            .select("document", "position", *each)
            .unpivot(
                on=wanted,
                index=["document", "position"],
                variable_name="label",
                value_name="decision",
            )
            .unnest("decision")
        )

    def check_sites(self, labels: Sequence[str]) -> None:
        """Check that there are sites of these labels.

        Raises
        ------
        InputError
            Names one that there is not.
        """
        for label in labels:
            if label not in self.labels:
                few = ", ".join(self.labels[:8]) + (", ..." if len(self.labels) > 8 else "")
                raise InputError(f"There is no site {label!r:.40}; there are {few}.")

    def steps(self) -> Iterator[pl.LazyFrame]:
        """Yield the rows of ``tokens`` some parts at a time: no document is in two of them."""
        held: list[str] = []
        size = 0
        for name, rows in self.parts.items():
            if held and size + rows > STEP_TOKENS:
                yield self._scan(TOKENS_FOLDER, held)
                held, size = [], 0
            held.append(name)
            size += rows
        if held:
            yield self._scan(TOKENS_FOLDER, held)

    def part_rows(self, name: str) -> pl.LazyFrame:
        """Return the rows of ``tokens`` of a part."""
        return self._scan(TOKENS_FOLDER, [name])

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Return what a lazy frame comes to, in a stream.

        Raises
        ------
        StoreError
            If a file is damaged.
        """
        with self._reading():
            return frame.collect(engine="streaming")

    def trace(self, documents: int | np.integer[Any] | Sequence[int]) -> Trace:
        """Return documents as a trace: decisions exact, scores as float16 kept them.

        Parameters
        ----------
        documents
            One, or several, by their numbers; each is a sequence of the trace, in their order
            in the corpus.

        Raises
        ------
        InputError
            If there is no such document, or it has no tokens.
        """
        wanted: list[Any] = (
            [documents] if isinstance(documents, int | np.integer) else list(documents)
        )
        numbers = pl.Series(wanted, dtype=pl.Int64).unique().sort()
        chosen = pl.col("document").is_in(numbers.implode())
        if len(numbers):
            # Which row groups can be passed over is known from their first and last document.
            chosen = chosen & pl.col("document").is_between(numbers[0], numbers[-1])
        about = self.collect(self.documents().filter(chosen))
        for number in numbers:
            row = about.filter(document=number)
            if row.is_empty():
                raise InputError(
                    f"There is no document {number}; they are numbered from 0 to "
                    f"{self.document_count - 1:,}."
                )
            if not row["tokens"][0]:
                raise InputError(f"Document {number} has no tokens: {row['error'][0]}")
        rows = self.collect(self.tokens().filter(chosen)).sort("document", "position")
        return trace_of_rows(rows, about, run=self.run, sites=self.sites)

    def traces(self) -> Iterator[Trace]:
        """Yield every part as a trace, its documents in their order."""
        for name in self.parts:
            yield self.part_trace(name)[1]

    def part_trace(self, name: str) -> tuple[Ints, Trace]:
        """Return a part as a trace, with the document of each of its tokens."""
        rows = self.collect(self.part_rows(name)).sort("document", "position")
        numbers = rows["document"]
        near = pl.col("document").is_between(numbers[0], numbers[-1])
        sources = self.collect(self.documents().filter(near).select("document", "source"))
        return numbers.to_numpy(), trace_of_rows(rows, sources, run=self.run, sites=self.sites)

    def sample(self, *, tokens: int = SAMPLE_TOKENS, seed: int = 0) -> CorpusSample:
        """Return whole documents drawn at random, as a trace that every analysis takes.

        Parameters
        ----------
        tokens
            Documents are drawn until they have so many together.
        seed
            Of the draw.

        Raises
        ------
        InputError
            If ``tokens`` is below 1, or no document has any.
        """
        check_seed(seed)
        if tokens < 1:
            raise InputError(f"tokens={tokens} must be at least 1.")
        known = self.collect(
            self.documents().filter(pl.col("tokens") > 0).select("document", "tokens")
        )
        if known.is_empty():
            raise InputError(f"{self.called} has no document with tokens.")
        order = np.random.default_rng(seed).permutation(known.height)
        reached = np.cumsum(known["tokens"].to_numpy()[order])
        count = min(len(order), int(np.searchsorted(reached, tokens)) + 1)
        drawn = np.sort(known["document"].to_numpy()[order[:count]])
        return CorpusSample(
            trace=self.trace(drawn.tolist()), documents=drawn, of=known.height, seed=seed
        )

    def damaged(self) -> dict[str, str]:
        """Compare every file with its checksum: what is wrong with those that differ, by path.

        Raises
        ------
        StoreError
            If the run that wrote the dataset has not ended.
        """
        return dict(damaged_files(self.where).damaged)

    def _scan(self, table: str, parts: Sequence[str]) -> pl.LazyFrame:
        if not parts:
            return pl.DataFrame(pl.from_arrow(token_schema(self.labels).empty_table())).lazy()
        with self._reading():
            paths = [self._folder.path(part_file(table, name)) for name in parts]
            return pl.scan_parquet(paths, glob=False)

    def _reading(self) -> Any:
        private = self._folder.private
        return one_kind_of_error(self.called, "a corpus", IF_DAMAGED, private=private)


@dataclass(frozen=True, eq=False)
class CorpusSample:
    """Documents of a corpus that were drawn at random.

    Attributes
    ----------
    trace
        They as a trace, a sequence for each.
    documents
        Their numbers in the corpus, in the order of the sequences.
    of
        Documents with tokens that the corpus has.
    seed
        Of the draw.

    Examples
    --------
    >>> _ = (tmp / "drawn.jsonl").write_text('{"text": "The fox runs."}')
    >>> _ = skipviz.trace_corpus(model, tmp / "drawn.jsonl", out=tmp / "drawn")
    >>> sample = skipviz.open_corpus(tmp / "drawn").sample(tokens=100, seed=0)
    >>> (len(sample.documents), sample.of, sample.trace.sites.height)
    (1, 1, 8)
    """

    trace: Trace
    documents: Ints
    of: int
    seed: int

    def __repr__(self) -> str:
        return f"CorpusSample({self.sentence})"

    @property
    def sentence(self) -> str:
        """How large it is, as a reader is told."""
        return (
            f"{len(self.documents):,} of {self.of:,} documents drawn at random (seed {self.seed}), "
            f"{len(self.trace):,} tokens"
        )


def _unfinished(folder: DatasetFolder) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """Return the files and the documents of the parts that are complete."""
    files: list[dict[str, Any]] = []
    tables, given = [], []
    for name in done_parts(folder):
        table, about = read_done(folder, name)
        files += about["files"]
        given += [json.loads(text) for text in table[OWN_COLUMNS].to_pylist()]
        tables.append(pl.DataFrame(pl.from_arrow(table.drop_columns([OWN_COLUMNS]))))
    if not any(str(each["path"]).startswith(f"{TOKENS_FOLDER}/") for each in files):
        raise StoreError(f"{folder.called} has no part that is complete; wait for the first.")
    own = []
    for column, called in user_columns(name for row in given for name in row).items():
        kind = user_type({user_kind(row.get(column)) for row in given})
        values = pa.array([as_user_type(row.get(column), kind) for row in given], type=kind)
        own.append(pl.Series(called, pl.from_arrow(values)))
    return files, pl.concat(tables).with_columns(own)
