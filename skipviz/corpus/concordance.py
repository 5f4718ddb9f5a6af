"""Words and patterns in all documents of a corpus, each with its path and the text around it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import regex

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.tokens.characters import new_characters
from skipviz.analysis.tokens.classes import KINDS, kinds_of_texts
from skipviz.arrays import Ints
from skipviz.corpus.dataset import CorpusDataset
from skipviz.errors import InputError

Search = Literal["word", "token", "pattern"]
MOST_LINES = 1000
MOST_SECONDS = 10.0
CONTEXT_CHARACTERS = 60
LONGEST_PATTERN = 1000
LONGEST_HIT = 500
"""Characters of a hit that are shown."""
_LINE: dict[str, Any] = {
    "document": pl.Int64, "source": pl.String, "position": pl.Int32, "tokens": pl.Int64,
    "left": pl.String, "hit": pl.String, "right": pl.String, "layers_used": pl.Float64,
    "surprisal": pl.Float64, "kind": pl.String, "cluster": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Concordance:
    """The places that were found.

    Attributes
    ----------
    lines
        One row per place, in the order of the corpus: ``document``, ``source``; ``position`` of its
        first token, and how many ``tokens`` it has; ``left``, ``hit``, ``right``, the text;
        ``layers_used``, their mean; ``surprisal``, their sum in nats, null where one stands first
        in its document; ``kind`` of the first token by its text alone, and its ``cluster``, null
        where none were given; ``executed``, for each site the share of the tokens it ran for, an
        array in the order of the corpus's sites.
    documents, of
        Documents that were searched, of those that might have been.
    ended
        Why it ended before all were: ``lines``, as many were found as were asked for; ``seconds``,
        no time was left; None: all were.
    """

    lines: pl.DataFrame
    documents: int
    of: int
    ended: Literal["lines", "seconds"] | None

    def __repr__(self) -> str:
        return f"Concordance({self.sentence})"

    @property
    def sentence(self) -> str:
        """What was found and where, as a reader is told."""
        said = f"{self.lines.height:,} places in {self.documents:,} of {self.of:,} documents"
        if self.ended is None:
            return said
        why = {"lines": "as many as were asked for", "seconds": "the time was over"}[self.ended]
        return f"{said}; the search ended there: {why}"


def concordance(
    corpus: CorpusDataset,
    wanted: str,
    *,
    search: Search = "word",
    ignore_case: bool = False,
    where: dict[str, Any] | None = None,
    kind: str | None = None,
    clusters: Clusters | None = None,
    cluster: int | None = None,
    lines: int = MOST_LINES,
    seconds: float = MOST_SECONDS,
    context: int = CONTEXT_CHARACTERS,
) -> Concordance:
    """Find a word, a token or a pattern, and what ran for it, each place with the text around it.

    Parameters
    ----------
    corpus
        What ``skipviz.open_corpus`` returned.
    wanted
        What is looked for.
    search
        ``word``: between characters that belong to no word; ``token``: the text of one token,
        white space at its ends left out; ``pattern``: a regular expression of the package
        ``regex``, which may stretch over tokens and lines.
    ignore_case
        Whether capitals are as small letters.
    where
        Documents that are searched: values of their columns, as ``{"domain": "law"}``.
    kind
        Only places whose first token is of this kind, one of ``KINDS``.
    clusters, cluster
        What ``skipviz.cluster`` found, as on a sample; and the cluster that the first token must
        be in, if one is meant.
    lines, seconds
        When the search ends, at most.
    context
        Characters of text on each side.

    Raises
    ------
    InputError
        If the pattern is no regular expression, or there is no such column, kind or cluster.

    Examples
    --------
    >>> _ = (tmp / "found.jsonl").write_text('{"text": "The fox saw a fox."}')
    >>> _ = skipviz.trace_corpus(model, tmp / "found.jsonl", out=tmp / "found")
    >>> found = skipviz.concordance(skipviz.open_corpus(tmp / "found"), "fox")
    >>> found.lines.select("left", "hit", "right").rows()
    [('The ', 'fox', ' saw a fox.'), ('The fox saw a ', 'fox', '.')]
    """
    pattern = _pattern(wanted, search, ignore_case)
    _check(lines=lines, seconds=seconds, context=context, kind=kind)
    if cluster is not None and (clusters is None or not 0 <= cluster < clusters.count):
        known = 0 if clusters is None else clusters.count
        raise InputError(f"cluster={cluster} is not one of the {known} clusters that were given.")
    documents = _documents(corpus, where or {})
    end = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    searched, ended = 0, None
    for text in _texts(corpus, documents):
        found = _found(text, pattern, search, until=end)
        for start, stop in found.spans:
            line = text.line(start, stop, context=context)
            if kind is not None and line["kind"] != kind:
                continue
            rows.append(line)
        if clusters is not None:
            _assign(corpus, clusters, rows)
            rows = [row for row in rows if cluster is None or row["cluster"] == cluster]
        searched += not found.cut
        if len(rows) >= lines:
            ended = "lines"
        elif found.cut or time.monotonic() > end:
            ended = "seconds"
        if ended is not None:
            break
    shape = pl.Array(pl.Float32, len(corpus.labels))
    table = pl.DataFrame(rows[:lines], schema=_LINE | {"executed": shape})
    done = searched == documents.height and len(rows) <= lines
    return Concordance(
        lines=table, documents=searched, of=documents.height, ended=None if done else ended
    )
