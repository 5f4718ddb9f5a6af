"""Words and patterns in all documents of a corpus, each with its path and the text around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
import regex

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.tokens.characters import new_characters
from skipviz.analysis.tokens.classes import KINDS, kinds_of_texts
from skipviz.arrays import Ints
from skipviz.corpus.reading.as_trace import trace_of_rows
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.reading.stored_clusters import (
    clusters_of_part,
    stored_clusters,
    undamaged_clusters,
)
from skipviz.errors import InputError, StoreError
from skipviz.text.arguments import checked

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
        where none were given or stored; ``executed``, for each site the share of the tokens it ran
        for, an array in the order of the corpus's sites.
    documents, of
        Documents that were searched to the end, of those that might have been.
    ended
        Why it ended before all were: ``lines``, as many were found as were asked for; ``seconds``,
        no time was left; None: all were.

    Examples
    --------
    >>> _ = (tmp / "lines.jsonl").write_text('{"text": "The fox saw a fox."}')
    >>> _ = skipviz.trace_corpus(model, tmp / "lines.jsonl", out=tmp / "lines")
    >>> skipviz.concordance(skipviz.open_corpus(tmp / "lines"), "saw")
    Concordance(1 place found; 1 of 1 documents searched to the end)
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
        places = "1 place" if self.lines.height == 1 else f"{self.lines.height:,} places"
        said = f"{places} found; {self.documents:,} of {self.of:,} documents searched to the end"
        if self.ended is None:
            return said
        why = {"lines": "with as many as were asked for", "seconds": "when the time was over"}
        return f"{said}; the search ended {why[self.ended]}"


@checked
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
        What ``skipviz.cluster`` found, as on a sample, None for those that ``skipviz corpus
        cluster`` stored; and the cluster that the first token must be in, if one is meant.
    lines, seconds
        When the search ends, at most.
    context
        Characters of text on each side.

    Returns
    -------
    Concordance
        A line for each place, and how much of the corpus was searched.

    Raises
    ------
    InputError
        If the pattern is no regular expression or takes too much memory, or there is no such
        column, kind or cluster.

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
    known = _ClustersOfTokens(corpus, clusters, needed=cluster is not None)
    if cluster is not None and not 0 <= cluster < known.count:
        raise InputError(
            f"cluster={cluster} is not one of the {known.count} clusters that were given or stored "
            "with skipviz corpus cluster."
        )
    documents = _documents(corpus, where or {})
    until = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    searched = 0
    ended: Literal["lines", "seconds"] | None = None
    for text in _texts(corpus, documents):
        found, cut = _lines(
            text, pattern, search, kind=kind, context=context, until=until,
            most=None if cluster is not None else lines + 1 - len(rows),
        )  # fmt: skip
        if known.count:
            found = _in_cluster(known, text, found, cluster)
        rows += found
        if cut or len(rows) > lines:
            ended = "seconds" if cut else "lines"
            break
        searched += 1
    shape = pl.Array(pl.Float32, len(corpus.labels))
    return Concordance(
        lines=pl.DataFrame(rows[:lines], schema=_LINE | {"executed": shape}),
        documents=searched,
        of=documents.height,
        ended=ended,
    )


@dataclass(frozen=True, eq=False)
class _Text:
    """A document as it is searched.

    Attributes
    ----------
    part
        The part of the corpus that it is in.
    tokens
        Its rows of ``tokens``, and ``fresh``, the characters that each adds.
    source
        Its name.
    text
        Its characters, each once.
    labels
        Of the sites.
    """

    part: str
    tokens: pl.DataFrame
    source: str
    text: str
    labels: list[str]

    @cached_property
    def ends(self) -> Ints:
        """Where each token ends in the text."""
        return np.cumsum(self.tokens["fresh"].str.len_chars().to_numpy().astype(np.int64))

    @cached_property
    def starts(self) -> Ints:
        """Where each token begins; one that repeats characters of others, where these do."""
        size = self.tokens["text"].str.len_chars().to_numpy().astype(np.int64)
        return np.maximum(self.ends - size, 0)

    def line(self, start: int, stop: int, *, token: int | None, context: int) -> dict[str, Any]:
        """Return the line of the characters from one place to another, or of a token there."""
        first = int(np.searchsorted(self.ends, start, side="right")) if token is None else token
        last = int(np.searchsorted(self.starts, stop, side="left")) if token is None else token + 1
        part = self.tokens[first:last]
        surprisal = part["surprisal"]
        return {
            "document": part["document"][0],
            "source": self.source,
            "position": part["position"][0],
            "tokens": part.height,
            "left": self.text[max(0, start - context) : start],
            "hit": self.text[start : min(stop, start + LONGEST_HIT)],
            "right": self.text[stop : stop + context],
            "layers_used": part["layers_used"].cast(pl.Float64).mean(),
            "surprisal": None if surprisal.null_count() else surprisal.cast(pl.Float64).sum(),
            "kind": kinds_of_texts(part["text"][:1])[0],
            "cluster": None,
            "executed": [part[label].mean() for label in self.labels],
        }


def _pattern(wanted: str, search: Search, ignore_case: bool) -> Any:
    """Return what is looked for as a compiled pattern."""
    if search not in ("word", "token", "pattern"):
        raise InputError(f"search={search!r:.40} must be word, token or pattern.")
    if not wanted.strip():
        raise InputError("Nothing to look for was given; give a word, a token or a pattern.")
    if len(wanted) > LONGEST_PATTERN:
        raise InputError(
            f"{len(wanted):,} characters are more than {LONGEST_PATTERN:,}; look for less."
        )
    written = wanted if search == "pattern" else regex.escape(wanted.strip(), literal_spaces=True)
    if search == "word":
        written = rf"(?<!\w){written}(?!\w)"
    try:
        return regex.compile(written, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"{wanted!r:.80} is not a regular expression ({error!s:.100}). Put a backslash before "
            "characters such as ( and [ that are meant as they are, or look for a word."
        ) from error


def _check(*, lines: int, seconds: float, context: int, kind: str | None) -> None:
    for name, value in (("lines", lines), ("context", context)):
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1.")
    if not seconds > 0:
        raise InputError(f"seconds={seconds:g} must be above 0.")
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind={kind!r:.40} is not one of {', '.join(KINDS)}.")


def _documents(corpus: CorpusDataset, where: dict[str, Any]) -> pl.DataFrame:
    """Return the documents that are searched, in order: ``document`` and ``source``."""
    known = ["source", *corpus.columns]
    for name in where:
        if name not in known:
            raise InputError(f"There is no column {name!r:.40}; there are {', '.join(known)}.")
    table = corpus.collect(
        corpus.documents().filter(pl.col("tokens") > 0).select("document", *known)
    ).sort("document")
    for name, value in where.items():
        table = table.filter(pl.Series([each == value for each in table[name]], dtype=pl.Boolean))
    return table.select("document", "source")


def _texts(corpus: CorpusDataset, documents: pl.DataFrame) -> Iterator[_Text]:
    """Yield documents, one part of the corpus after the other."""
    if documents.is_empty():
        return
    wanted = [
        "document", "position", "text", "char_start", "char_end", "span", "surprisal",
        "layers_used", *corpus.labels,
    ]  # fmt: skip
    for part in corpus.parts:
        chosen = corpus.part_rows(part).select(wanted).join(documents.lazy(), on="document")
        table = corpus.collect(chosen).sort("document", "position")
        # Spans count from 0 in each document.
        apart = table.with_columns(span=pl.col("document") * 2**31 + pl.col("span"))
        table = apart.with_columns(fresh=new_characters())
        texts = table.group_by("document", maintain_order=True).agg(
            pl.col("source").first(), pl.col("fresh").str.join(""), tokens=pl.len()
        )
        first = 0
        for _, source, text, count in texts.iter_rows():
            yield _Text(part, table.slice(first, count), source, text, corpus.labels)
            first += count


def _lines(
    text: _Text, pattern: Any, search: Search, *, kind: str | None, context: int, until: float,
    most: int | None,
) -> tuple[list[dict[str, Any]], bool]:  # fmt: skip
    """Return the lines of a document, and whether the time was over before its end."""
    found: list[dict[str, Any]] = []
    try:
        for start, stop, token in _places(text, pattern, search, until=until):
            line = text.line(start, stop, token=token, context=context)
            if kind in (None, line["kind"]):
                found.append(line)
            if len(found) == most:
                break
    except TimeoutError:
        return found, True
    except MemoryError as error:  # regex ends by itself what tries too many ways at once
        raise InputError(
            f"The pattern takes too much memory in {text.source} ({len(text.text):,} characters). "
            "Look for a simpler one, without a repetition in a repetition."
        ) from error
    return found, False


def _places(
    text: _Text, pattern: Any, search: Search, *, until: float
) -> Iterator[tuple[int, int, int | None]]:
    """Yield where it is found in a text, and which token it is if one was meant.

    Raises
    ------
    TimeoutError
        If the time is over.
    """

    def left() -> float:
        if (seconds := until - time.monotonic()) <= 0:
            raise TimeoutError
        return seconds

    if search == "token":
        for place, token in enumerate(text.tokens["text"]):
            trimmed = token.strip()
            if pattern.fullmatch(trimmed, timeout=left()):
                start = int(text.starts[place]) + token.index(trimmed)
                yield start, start + len(trimmed), place
        return
    for match in pattern.finditer(text.text, timeout=left()):
        # What matches nothing, as x* between other letters, is no place.
        if match.end() > match.start():
            yield *match.span(), None
        left()


class _ClustersOfTokens:
    """The clusters of tokens, from what is read of a part once a place was found in it.

    Parameters
    ----------
    corpus
        Whose tokens they are.
    clusters
        What they are; None for those that are stored, if any are.
    needed
        Whether stored ones that are damaged are an error, and not as none.
    """

    def __init__(self, corpus: CorpusDataset, clusters: Clusters | None, *, needed: bool) -> None:
        self._corpus, self._given, self._needed = corpus, clusters, needed
        stored = stored_clusters if needed else undamaged_clusters
        found = stored(corpus) if clusters is None else clusters
        self.count = 0 if found is None else found.count
        self._part, self._table = "", pl.DataFrame()

    def of(self, text: _Text) -> dict[int, int | None]:
        """Return the cluster of each token of a document by its position; none if damaged."""
        try:
            own = self._rows(text)
        except StoreError:
            if self._needed or self._given is not None:
                raise
            self.count = 0
            return {}
        if self._given is not None:
            # Of this document alone: the time may be over before others are asked for.
            sources = own.select("document").unique().with_columns(source=pl.lit(text.source))
            rows, corpus = own.sort("position"), self._corpus
            own = self._given.assign(
                trace_of_rows(rows, sources, run=corpus.run, sites=corpus.sites)
            )
        return dict(own.select("position", "cluster").rows())

    def _rows(self, text: _Text) -> pl.DataFrame:
        """Return what is stored of a document's clusters, or its rows of ``tokens``."""
        if text.part != self._part:
            self._table = self._corpus.collect(
                clusters_of_part(self._corpus, text.part)
                if self._given is None
                else self._corpus.part_rows(text.part)
            )
            self._part = text.part
        return self._table.filter(document=text.tokens["document"][0])


def _in_cluster(
    known: _ClustersOfTokens, text: _Text, lines: list[dict[str, Any]], cluster: int | None
) -> list[dict[str, Any]]:
    """Return lines of one document with the clusters of their first tokens, those of one alone."""
    if not lines:
        return lines
    place = known.of(text)
    named = [line | {"cluster": place.get(line["position"])} for line in lines]
    return [line for line in named if cluster is None or line["cluster"] == cluster]
