"""How far a run over a corpus is: rate, time left, errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skipviz.corpus.parts import Part


@dataclass(frozen=True, kw_only=True)
class CorpusProgress:
    """How far a run is.

    Attributes
    ----------
    documents, failed, tokens
        Done in this run; failed ones are among the documents.
    seconds
        Since it began.
    share
        Of the whole input, 0 to 1; None where its size is not known.
    seconds_left
        At the pace so far; None where it is not known.
    last_error
        Of the document that failed last.

    Examples
    --------
    >>> _ = (tmp / "a.txt").write_text("The fox jumps.")
    >>> seen = []
    >>> _ = skipviz.trace_corpus(model, tmp / "a.txt", out=tmp / "seen", report=seen.append)
    >>> seen[-1].documents, seen[-1].share
    (1, 1.0)
    """

    documents: int
    failed: int
    tokens: int
    seconds: float
    share: float | None
    seconds_left: float | None
    last_error: str | None

    @property
    def tokens_per_second(self) -> float:
        """The pace so far."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """What a dataset holds.

    Attributes
    ----------
    documents, failed
        Documents, and those of them that have an error.
    tokens, decisions
        Rows of ``tokens``, and those times sites.
    parts
        Parts.

    Examples
    --------
    >>> _ = (tmp / "one.txt").write_text("The fox jumps.")
    >>> skipviz.trace_corpus(model, tmp / "one.txt", out=tmp / "of one text").documents
    1
    """

    documents: int
    failed: int
    tokens: int
    decisions: int
    parts: int


Report = Callable[[CorpusProgress], None]
"""Takes how far a run is."""


def no_report(progress: CorpusProgress) -> None:
    """Report nothing: the default of ``report``."""


class Pace:
    """Adds up what is done, and reports it.

    Parameters
    ----------
    report
        Whom it is told.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._began = time.monotonic()
        self._documents = self._failed = self._tokens = 0
        self._share: float | None = None
        self._first_share: float | None = None
        self._last_error: str | None = None

    def noting(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Pass parts on, and take note of how far the input was read before the first."""
        for part in parts:
            if self._first_share is None:
                self._first_share = part.before
            yield part

    def within(self, share: float | None) -> None:
        """Report how far the input has been worked on, between parts."""
        self._share = share if share is None else max(share, self._share or 0.0)
        self._tell()

    def add(self, *, documents: int, tokens: int, errors: list[str], share: float | None) -> None:
        """Count what was done, and report."""
        self._documents += documents
        self._tokens += tokens
        self._failed += len(errors)
        self._last_error = errors[-1] if errors else self._last_error
        self.within(share)

    def _tell(self) -> None:
        seconds = time.monotonic() - self._began
        left = None
        if self._share is not None:
            done = self._share - (self._first_share or 0.0)
            left = seconds * (1 - self._share) / done if done > 0 else None
        self._report(
            CorpusProgress(
                documents=self._documents,
                failed=self._failed,
                tokens=self._tokens,
                seconds=seconds,
                share=self._share,
                seconds_left=left,
                last_error=self._last_error,
            )
        )
