"""How figures change along documents, and their tails, document by document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from skipviz.analysis.robustness.tails import tail_figures
from skipviz.analysis.statistics.intervals import (
    SHARE_CHANGE,
    UNBOUNDED,
    clustered_margin,
    interval_ends,
)
from skipviz.corpus.format import user_columns
from skipviz.corpus.questions.means import FIGURES
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import InputError

ALONG_PARTS = 10


def along_documents(
    corpus: CorpusDataset,
    values: Sequence[str] = ("layers_used", "nll"),
    *,
    parts: int = ALONG_PARTS,
) -> pl.DataFrame:
    """Return how figures drift along documents: in equal parts of each, from first to last.

    Every document that is counted has tokens in every part, so the parts hold the same documents,
    and each document counts once in each.

    Parameters
    ----------
    corpus
        What ``skipviz.open_corpus`` returned.
    values
        Of ``FIGURES``, and labels of sites.
    parts
        Of each document; documents of fewer tokens are left out.

    Returns
    -------
    pl.DataFrame
        One row per value and part: ``value``; ``part``, from 0; ``documents``; ``mean`` over
        documents of their means in the part; ``change`` from the first part, the mean over
        documents, with its 95% interval ``low`` to ``high``, null for a single document.

    Raises
    ------
    InputError
        If there is no such value, ``parts`` is below 2, or every document is shorter.
    """
    unknown = [name for name in values if name not in (*FIGURES, *corpus.labels)]
    if unknown or parts < 2:
        raise InputError(
            f"There is no mean of {unknown[0]!r:.40}; there are {', '.join(FIGURES)} and labels of "
            "sites." if unknown else f"parts={parts} must be at least 2."
        )  # fmt: skip
    means = [pl.col(name).cast(pl.Float64).mean() for name in values]
    # Positions of a recording may have gaps.
    number = pl.col("position").rank("ordinal").over("document").cast(pl.Int64) - 1
    place = number * parts // pl.col("tokens")
    sizes = corpus.documents().filter(pl.col("tokens") >= parts).select("document", tokens="tokens")
    found = [
        corpus.collect(
            rows.join(sizes, on="document")
            .with_columns(part=place)
            .group_by("document", "part")
            .agg(means)
        ).sort("document", "part")
        for rows in corpus.steps()
    ]
    table = pl.concat(found)
    if table.is_empty():
        raise InputError(f"Every document has fewer than {parts} tokens; ask for fewer parts.")
    rows = []
    for name in values:
        each = table[name].fill_null(np.nan).to_numpy().reshape(-1, parts)
        each = each[np.isfinite(each).all(axis=1)]
        for part in range(parts):
            change = each[:, part] - each[:, 0]
            mean = float(change.mean()) if len(each) else float("nan")
            margin = clustered_margin(change, np.arange(len(each))) if len(each) else float("nan")
            bounds = UNBOUNDED if name in FIGURES else SHARE_CHANGE
            low, high = interval_ends(mean, margin, bounds)
            rows.append(
                {
                    "value": name,
                    "part": part,
                    "documents": len(each),
                    "mean": float(each[:, part].mean()) if len(each) else float("nan"),
                    "change": mean,
                    "low": float(low),
                    "high": float(high),
                }
            )
    return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None))


def corpus_tails(corpus: CorpusDataset) -> pl.DataFrame:
    """Return quantiles of layers used and of loss, document by document, in one pass.

    Returns
    -------
    pl.DataFrame
        One row per document with tokens, in order: ``document``, ``source``, the user's columns,
        ``tokens``, and the figures of ``skipviz.analysis.robustness.tails.tails``.
    """
    figures = tail_figures(("layers_used", "nll"))
    found = [
        corpus.collect(rows.group_by("document").agg(figures)).sort("document")
        for rows in corpus.steps()
    ]
    table = pl.concat(found)
    own = user_columns(corpus.columns, ("source", "tokens", *table.columns))
    about = corpus.documents().select(
        "document", "source", *(pl.col(name).alias(shown) for name, shown in own.items()), "tokens"
    )
    return corpus.collect(about).join(table, on="document", maintain_order="left")
