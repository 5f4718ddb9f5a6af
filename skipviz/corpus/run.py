"""Traces a corpus: input to parts, parts to an engine, results to the writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from skipviz.corpus.analyses import check_analyses, check_analysis_name
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import PART_CHARACTERS
from skipviz.corpus.inputs import Entry, entries_of, sizes
from skipviz.corpus.on_ray import Workers, ray_results
from skipviz.corpus.parts import Part, cut_into_parts
from skipviz.corpus.sources import check_outside, found_sources
from skipviz.corpus.summaries import CorpusSummary, Pace, Report, no_report
from skipviz.corpus.work import CorpusSettings, PartResult, about_corpus, done_part
from skipviz.corpus.writer import CorpusWriter
from skipviz.errors import InputError
from skipviz.models import SkipModel
from skipviz.progress import check_stop
from skipviz.text.arguments import checked

ENGINES = ("local", "ray")


@checked
def trace_corpus(
    model: SkipModel | Callable[[], SkipModel],
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    engine: str = "local",
    analyses: Sequence[str] = (),
    text_column: str = "text",
    bos: bool | None = None,
    part_characters: int = PART_CHARACTERS,
    workers: Workers = Workers(),  # noqa: B008 -- it cannot be changed
    report: Report = no_report,
    stop: threading.Event | None = None,
) -> CorpusSummary:
    """Trace every document of an input, and write a dataset of Parquet files.

    A run that was stopped or killed goes on where it was when it is begun again: nothing is done
    twice, nothing is lost. The numbers of a document are those of ``skipviz.trace``.

    Parameters
    ----------
    model
        What ``skipviz.load`` returned, or a function that returns it. For ``engine="ray"`` a
        function, which every worker calls.
    inputs
        Files of texts, ``.txt``, ``.md``, ``.jsonl``, ``.csv`` or ``.parquet``, the first four
        packed with gz or zst or not; folders of such files; addresses such as ``s3://bucket/x``;
        ``-`` for a text on standard input.
    out
        Folder of the dataset, or an address.
    engine
        ``local`` for this process, or ``ray`` for the workers of a Ray cluster.
    analyses
        Further tables: ``audit``, what each decision was worth, which takes long, and ``lens``, the
        layer behind which each prediction is settled.
    text_column
        Column of the text in ``.csv`` and ``.parquet``, field in ``.jsonl``; the others are kept.
    bos
        Whether each text begins with the begin-of-sequence token; None: as the tokenizer does.
    part_characters
        Characters of text that share a file. A part that is not complete is done again after a
        kill, and is in memory as a whole.
    workers
        Workers of the Ray cluster, and what each is given.
    report
        Called with how far the run is.
    stop
        Set it from another thread to stop.

    Returns
    -------
    CorpusSummary
        Documents, those that failed, tokens, decisions and parts of the whole dataset.

    Raises
    ------
    InputError
        If an input is missing, nothing can be traced, the folder is of another model or another
        input, or cannot be written.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> _ = (tmp / "texts.jsonl").write_text('{"text": "The fox.", "domain": "animals"}')
    >>> summary = skipviz.trace_corpus(model, tmp / "texts.jsonl", out=tmp / "corpus")
    >>> summary.documents, summary.failed
    (1, 0)
    """
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r:.40} must be {' or '.join(ENGINES)}.")
    for name in analyses:
        check_analysis_name(name)
    if part_characters < 1:
        raise InputError(f"part_characters={part_characters} must be at least 1.")
    named = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    check_outside(str(out), named)
    size = sizes(found_sources(named))  # which also says what is not there, before anything runs
    settings = CorpusSettings(
        part_characters=part_characters, bos=bos, analyses=tuple(sorted(set(analyses)))
    )
    folder = DatasetFolder(out)
    pace = Pace(report)
    with folder.held():
        writer = CorpusWriter(folder)
        read = read_entries(named, text_column=text_column, size=size)
        cut = cut_into_parts(read, part_characters=part_characters)
        parts = pace.noting(writer.missing(cut))
        if engine == "ray":
            if isinstance(model, SkipModel):
                raise InputError(
                    "engine='ray' needs a function that loads the model, which every worker "
                    "calls, such as lambda: skipviz.load('smollm2-gated')."
                )
            results = ray_results(
                model, parts, folder=folder, settings=settings, workers=workers, stop=stop
            )
        else:
            loaded = model if isinstance(model, SkipModel) else model()
            about = about_corpus(loaded, settings)
            writer.check_same(about)
            check_analyses(loaded, settings.analyses)
            results = _local_results(
                loaded, parts, about=about, folder=folder, settings=settings, pace=pace, stop=stop
            )
        with closing(results):  # so that workers end with the run, however it ends
            for result in results:
                writer.take(result)
                pace.add(
                    documents=len(result.documents),
                    tokens=result.tokens,
                    errors=result.errors,
                    share=result.share,
                )
                check_stop(stop)
        return writer.finish()


def read_entries(
    inputs: Sequence[str | Path], *, text_column: str, size: int | None
) -> Iterator[tuple[Entry, float | None]]:
    """Yield every document, with how much of the input has been read with it.

    Parameters
    ----------
    inputs, text_column
        As of ``trace_corpus``.
    size
        Bytes of all files; None where that is not known.
    """
    before = read = 0

    def tell(there: int) -> None:
        nonlocal read
        read = there

    for source in found_sources(inputs):
        read = 0
        for entry in entries_of(source, text_column=text_column, tell=tell):
            yield entry, min(1.0, (before + read) / size) if size else None
        before += source.size or 0


def _local_results(
    model: SkipModel,
    parts: Iterator[Part],
    *,
    about: dict[str, Any],
    folder: DatasetFolder,
    settings: CorpusSettings,
    pace: Pace,
    stop: threading.Event | None,
) -> Generator[PartResult, None, None]:
    """Work on one part after the other, in this process."""
    for part in parts:
        check_stop(stop)
        within = partial(_tell_within, pace, part)
        yield done_part(model, part, folder, settings, about=about, progress=within, stop=stop)


def _tell_within(pace: Pace, part: Part, done: float) -> None:
    """Report how far a part is, of which so large a share is done."""
    if part.before is not None and part.share is not None:
        pace.within(part.before + done * (part.share - part.before))
