"""What tokens of a corpus are grouped by: a column of documents, or what a token is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from skipviz.analysis.tokens.classes import KINDS, kinds_of_texts
from skipviz.corpus.format import user_columns
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import InputError

OF_TOKENS = ("kind", "phase")
"""What a token is by itself: the kind of its text (``kinds_of_texts``), and prefill or decode."""
OF_DOCUMENTS = ("document", "source")
"""Columns that all corpora have; the user's own come besides."""

TABLE_COLUMNS = (
    "value", "documents", "tokens", "mean", "low", "high", "error", "label", "layer", "unit",
    "visit", "rate",
)  # fmt: skip
"""Columns of tables of groups; a user's column of such a name has ``user.`` before it there."""

By = str | Sequence[str] | None


@dataclass(frozen=True)
class Groups:
    """What tokens are grouped by.

    Attributes
    ----------
    names
        Columns of the corpus's documents, and of ``OF_TOKENS``.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, corpus: CorpusDataset, by: By) -> Groups:
        """Return them, having made sure that the corpus has each.

        Raises
        ------
        InputError
            Names what there is no column for, and what there is.
        """
        names = (by,) if isinstance(by, str) else tuple(by or ())
        known = (*columns_of(corpus).values(), *OF_TOKENS, *OF_DOCUMENTS)
        for name in names:
            if name not in known:
                raise InputError(
                    f"Tokens cannot be grouped by {name!r:.40}; choose of {', '.join(known)}."
                )
        if len(set(names)) < len(names):
            raise InputError(f"One column is named twice in {', '.join(names)}; name each once.")
        return cls(names)

    @property
    def of_tokens(self) -> list[str]:
        """Those of them that differ within a document."""
        return [name for name in self.names if name in OF_TOKENS]

    @property
    def columns(self) -> list[str]:
        """What they are called while sums are taken, so that no other column is called so."""
        return [_inner(name) for name in self.names]

    @property
    def shown(self) -> list[str]:
        """What they are called in a table of groups."""
        return [f"user.{name}" if name in TABLE_COLUMNS else name for name in self.names]

    @property
    def keys(self) -> list[str]:
        """What is summed apart before documents are put together."""
        return ["document", *map(_inner, self.of_tokens)]

    def of_rows(self, corpus: CorpusDataset, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return rows of ``tokens`` with what they are grouped by."""
        added = [pl.col("phase").alias(_inner("phase"))] if "phase" in self.names else []
        if "kind" in self.names:
            # Each different text is looked at once, and its code looked up.
            texts = corpus.collect(rows.select("text").unique())["text"].sort()
            kinds = kinds_of_texts(texts).cast(pl.Enum(KINDS))
            code = pl.col("text").cast(pl.Enum(texts)).to_physical()
            added.append(pl.lit(kinds).gather(code).alias(_inner("kind")))
        return rows.with_columns(added)

    def of_documents(self, corpus: CorpusDataset, sums: pl.LazyFrame) -> pl.LazyFrame:
        """Return sums by document with what these are grouped by."""
        wanted = [name for name in self.names if name not in OF_TOKENS]
        if not wanted:
            return sums
        stored = {shown: name for name, shown in columns_of(corpus).items()}
        known = corpus.documents().select(
            "document", *(pl.col(stored.get(name, name)).alias(_inner(name)) for name in wanted)
        )
        return sums.join(known, on="document", how="left")


def columns_of(corpus: CorpusDataset) -> dict[str, str]:
    """Return what tokens can be grouped by a user's columns as: ``kind`` is ``user.kind``."""
    return user_columns(corpus.columns, OF_TOKENS)


def _inner(name: str) -> str:
    return f"by {name}"
