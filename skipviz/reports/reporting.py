"""A report of one trace: one file that opens from disk and asks nothing of a network."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from skipviz.analysis.flops import cost_summary
from skipviz.atomic import atomic_write
from skipviz.errors import InputError
from skipviz.models import SkipModel
from skipviz.plots.style.labels import html_text, said_of
from skipviz.progress import Progress, check_seed, no_progress, part_of
from skipviz.readings.paths import cost_reading
from skipviz.readings.skipping import skipping_notes
from skipviz.reports.analyses import ANALYSES, CHEAP, Asked, check_names, made
from skipviz.reports.archive import write_archive
from skipviz.reports.citation import bibtex, versions_here
from skipviz.reports.page import rows_of, whole_page
from skipviz.reports.sections import Section
from skipviz.reports.viewer import viewer
from skipviz.reports.whole_text import key_figures_of, whole_text
from skipviz.text.arguments import checked
from skipviz.traces import Trace

TITLE = "Which layers did each token use?"
SOURCES_NAMED = 3
"""Texts that a report names; the others are counted."""


@checked
def report(
    trace: Trace,
    path: Path | str,
    *,
    model: SkipModel | None = None,
    analyses: Sequence[str] = CHEAP,
    zip: Path | str | None = None,  # noqa: A002 - the option is called so
    excel: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> None:
    """Write a report of a trace: one HTML file that opens from disk, without any network.

    It has the answer first, the text and the map of layers and tokens to click on, figures and
    tables of the whole text, the analyses asked for, provenance, and how to cite skipviz. The same
    trace gives the same file.

    Parameters
    ----------
    trace
        A trace of at least one token.
    path
        The file to write.
    model
        The model that was traced, for analyses that run it.
    analyses
        ``difficulty`` and ``specialties``, which are cheap; ``clusters``; ``audit``, which runs the
        model; ``check``, the check-up, of the model if there is one, else of the trace. One that
        cannot be made of this trace says why in its section.
    zip
        A ZIP to write with all tables as CSV, and the trace; none if None.
    excel
        Whether CSV in the ZIP begins with a byte order mark, as Excel wants it for letters beyond
        ASCII.
    seed
        Of the draws of analyses.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Raises
    ------
    InputError
        If the trace has no tokens, there is no such analysis or seed, or one needs the model and
        there is none.
    Stopped
        If ``stop`` was set; nothing is written.

    Examples
    --------
    >>> skipviz.report(trace, tmp / "report.html", analyses=["check"], zip=tmp / "tables.zip")
    >>> "Can these figures be trusted?" in (tmp / "report.html").read_text(encoding="utf-8")
    True
    """
    if not len(trace):
        raise InputError("The trace has 0 tokens, so there is nothing to report; trace a text.")
    check_names(analyses, model_at_hand=model is not None)
    check_seed(seed)
    chosen = [name for name in ANALYSES if name in analyses]
    parts = []
    for place, name in enumerate(chosen):
        share = part_of(progress, place, len(chosen))
        asked = Asked(trace=trace, model=model, seed=seed, progress=share, stop=stop)
        parts.append(made(name, asked))
    figures = cost_summary(trace)
    sections = [
        Section(
            name="text",
            title="The text and its layers",
            answer=[
                "Click a token, or use the arrow keys, to see its path through the layers and the "
                "most likely next tokens. Press ? for all keys."
            ],
        ),
        whole_text(trace, figures),
        *parts,
    ]
    written = whole_page(
        title=TITLE,
        subject=f"{_sources(trace)}: {said_of(trace)}",
        answer=[
            cost_reading(trace, figures),
            *(f"**{note.label}**: {note.sentence}" for note in skipping_notes(trace)),
        ],
        figures=key_figures_of(trace, figures),
        sections=sections,
        inserted={"text": viewer(trace)},
        end=_provenance(trace),
        zipped=None if zip is None else Path(zip).name,
    )
    if zip is not None:
        tables = [table for section in sections for table in section.tables]
        write_archive(trace, Path(zip), tables=tables, excel=excel)
    with atomic_write(Path(path)) as partial:
        partial.write_text(written, encoding="utf-8")
    progress(1.0)


def _sources(trace: Trace) -> str:
    names = trace.tokens["source"].unique(maintain_order=True).to_list()
    named = ", ".join(str(name) for name in names[:SOURCES_NAMED])
    left = len(names) - SOURCES_NAMED
    return named + (f" and {left:,} more" if left > 0 else "")


def _provenance(trace: Trace) -> str:
    """Return where the trace comes from, what made the report, and how to cite it, as HTML."""
    run = list(trace.run.row(0, named=True).items())
    return (
        '<section id="provenance"><h2>Provenance and citation</h2>'
        f"{rows_of(run, caption='How the trace was recorded')}"
        f"{rows_of(versions_here(), caption='What made this report')}"
        f"<h3>Citation</h3><pre>{html_text(bibtex())}</pre></section>"
    )
