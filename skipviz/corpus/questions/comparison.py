"""Two corpora of the same documents beside each other: policies, budgets or models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from skipviz.analysis.statistics.intervals import (
    SHARE_CHANGE,
    UNBOUNDED,
    Bounds,
    interval_ends,
    student_margin,
)
from skipviz.analysis.statistics.multiple_tests import with_q_values
from skipviz.arrays import Floats
from skipviz.corpus.format import user_columns
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import InputError
from skipviz.progress import Progress, no_progress
from skipviz.text.arguments import checked

COMPARED = ("layers_used", "nll")
_BATCH_DOCUMENTS = 2000
_SIDES = ("first", "second")


@dataclass(frozen=True, kw_only=True, eq=False)
class CorpusComparison:
    """How one corpus differs from another on the documents that both have: second less first.

    Attributes
    ----------
    documents
        One row per document of both: ``first`` and ``second``, its numbers; ``source``; the
        columns of the first corpus that its user gave, with ``user.`` before a name that is
        one of these; ``same_tokens``, whether both cut it into
        the same tokens; for ``layers_used``, and for ``nll`` in nats, means over its tokens
        ``_first`` and ``_second`` and their ``_difference``; ``changed``, the share of its
        decisions that differ, 0 to 1. Losses per token, and decisions, are null where tokens
        differ; decisions also where sites do.
    means
        One row for each of these and for the rate of each site that both have: ``figure``;
        ``documents``; ``first`` and ``second``, means over all tokens of the documents;
        ``difference``, with its 95% interval over documents ``low`` to ``high``; ``p`` of that
        it is 0, by Student's t, and ``q`` after Benjamini and Hochberg. Intervals are null for a
        single document.
    unmatched
        Documents with tokens of the first corpus that the second has not, and the other way round.

    Examples
    --------
    >>> _ = (tmp / "both.jsonl").write_text('{"text": "The fox runs."}')
    >>> _ = skipviz.trace_corpus(model, tmp / "both.jsonl", out=tmp / "both")
    >>> corpus = skipviz.open_corpus(tmp / "both")
    >>> skipviz.compare_corpora(corpus, corpus)
    CorpusComparison(1 documents, 1 of the same tokens; only in one: 0 and 0)
    """

    documents: pl.DataFrame
    means: pl.DataFrame
    unmatched: tuple[int, int]

    def __repr__(self) -> str:
        return (
            f"CorpusComparison({self.documents.height:,} documents, "
            f"{int(self.documents['same_tokens'].sum()):,} of the same tokens; only in one: "
            f"{self.unmatched[0]:,} and {self.unmatched[1]:,})"
        )


@checked
def compare_corpora(
    first: CorpusDataset, second: CorpusDataset, *, progress: Progress = no_progress
) -> CorpusComparison:
    r"""Compare two corpora on the documents that both have, found by what these hold.

    Parameters
    ----------
    first, second
        What ``skipviz.open_corpus`` returned. A text that occurs several times is matched in order.
    progress
        Called with the share of the documents done, 0 to 1.

    Returns
    -------
    CorpusComparison
        Differences per document, and of means with intervals over documents.

    Raises
    ------
    InputError
        If they share no document.

    Examples
    --------
    >>> _ = (tmp / "same.jsonl").write_text('{"text": "The fox runs."}\n{"text": "A dog."}')
    >>> for name, handle in (("less", skipviz.at_budget(model, 0.6)), ("more", model)):
    ...     _ = skipviz.trace_corpus(handle, tmp / "same.jsonl", out=tmp / name)
    >>> less, more = (skipviz.open_corpus(tmp / name) for name in ("less", "more"))
    >>> found = skipviz.compare_corpora(less, more)
    >>> found.means.filter(figure="layers_used")["documents"].item()
    2
    """
    pairs, unmatched = _pairs(first, second)
    if pairs.is_empty():
        raise InputError(
            f"{first.called} and {second.called} share no document (0 of {first.document_count:,} "
            f"and {second.document_count:,}); compare corpora of the same texts."
        )
    labels = [label for label in first.labels if label in second.labels]
    same_sites = first.labels == second.labels
    parts, done = [], 0
    for some in pairs.iter_slices(_BATCH_DOCUMENTS):
        parts.append(_of_documents(first, second, some, labels))
        done += some.height
        progress(done / pairs.height)
    sums = pl.concat(parts)
    return CorpusComparison(
        documents=_documents(first, pairs, sums, same_sites=same_sites),
        means=_means(sums, labels),
        unmatched=unmatched,
    )


def _pairs(first: CorpusDataset, second: CorpusDataset) -> tuple[pl.DataFrame, tuple[int, int]]:
    """Return the numbers of each document in both, and how many are in one alone."""
    known = []
    for corpus, side in ((first, "first"), (second, "second")):
        rows = corpus.documents().filter(pl.col("tokens") > 0, pl.col("sha256").is_not_null())
        table = corpus.collect(rows.select("sha256", pl.col("document").alias(side))).sort(side)
        known.append(table.with_columns(again=pl.int_range(pl.len()).over("sha256")))
    pairs = known[0].join(known[1], on=["sha256", "again"], maintain_order="left")
    alone = (known[0].height - pairs.height, known[1].height - pairs.height)
    return pairs.select("first", "second"), alone


def _of_documents(
    first: CorpusDataset, second: CorpusDataset, pairs: pl.DataFrame, labels: list[str]
) -> pl.DataFrame:
    """Return sums over the tokens of some documents, a row for each.

    Of each side ``tokens``, sums of ``COMPARED`` and how many are known, and of each site; and of
    both ``same_tokens`` and ``changed`` decisions.
    """
    wanted = ["position", "token_id", "text", *COMPARED, *labels]
    sides = []
    for corpus, side in ((first, "first"), (second, "second")):
        numbers = pairs[side]
        chosen = pl.col("document").is_between(numbers.min(), numbers.max())
        rows = corpus.tokens().filter(chosen).select("document", *wanted)
        sides.append(
            rows.join(pairs.lazy().select(document=pl.col(side), pair="first"), on="document")
            .drop("document")
            .rename({name: f"{name} {side}" for name in wanted if name != "position"})
        )
    both = sides[0].join(sides[1], on=["pair", "position"], how="full", coalesce=True)
    # Ids are unknown in some recordings; a token that one side lacks has no text there.
    same_id = pl.col("token_id first").eq_missing(pl.col("token_id second"))
    agrees = same_id & pl.col("text first").eq(pl.col("text second")).fill_null(False)
    each = [agrees.all().alias("same_tokens")]
    for side in _SIDES:
        each.append(pl.col(f"layers_used {side}").count().alias(f"tokens {side}"))
        for name in COMPARED:
            known = pl.col(f"{name} {side}")
            each += [
                known.cast(pl.Float64).sum(),
                known.count().alias(f"{name} known {side}"),
            ]
        each += [pl.col(f"{label} {side}").sum() for label in labels]
    differ = [pl.col(f"{label} first") != pl.col(f"{label} second") for label in labels]
    changed = pl.sum_horizontal(differ).sum() if differ else pl.lit(None, dtype=pl.UInt32)
    table = first.collect(both.group_by("pair").agg(*each, changed.alias("changed")))
    return pairs.join(table, left_on="first", right_on="pair", maintain_order="left")


def _documents(
    corpus: CorpusDataset, pairs: pl.DataFrame, sums: pl.DataFrame, *, same_sites: bool
) -> pl.DataFrame:
    same = pl.col("same_tokens")
    each: list[pl.Expr] = []
    for name in COMPARED:
        comparable = same if name == "nll" else pl.lit(True)
        means = [pl.col(f"{name} {side}") / _positive(f"{name} known {side}") for side in _SIDES]
        each += [mean.alias(f"{name}_{side}") for mean, side in zip(means, _SIDES, strict=True)]
        each.append(pl.when(comparable).then(means[1] - means[0]).alias(f"{name}_difference"))
    decisions = pl.col("tokens first") * len(corpus.labels)
    shared = pl.when(same & pl.lit(same_sites) & (decisions > 0)).then(
        pl.col("changed") / decisions
    )
    figures = sums.select("first", "second", same, *each, changed=shared)
    own = user_columns(corpus.columns, ("source", *figures.columns))
    about = corpus.collect(
        corpus.documents().select(
            pl.col("document").alias("first"),
            "source",
            *(pl.col(name).alias(shown) for name, shown in own.items()),
        )
    )
    front = pairs.join(about, on="first", maintain_order="left")
    return front.join(figures.drop("second"), on="first", maintain_order="left")


def _positive(name: str) -> pl.Expr:
    """Return a count, null where it is 0: nothing is divided by that."""
    return pl.when(pl.col(name) > 0).then(pl.col(name))


def _means(sums: pl.DataFrame, labels: list[str]) -> pl.DataFrame:
    """Return differences between means over all tokens, each document a cluster."""
    rows = []
    for name, known in [
        *((name, f"{name} known") for name in COMPARED),
        *((label, "tokens") for label in labels),
    ]:
        table = sums.filter("same_tokens") if name == "nll" else sums
        total, size = (
            [table[f"{each} {side}"].cast(pl.Float64).to_numpy() for side in _SIDES]
            for each in (name, known)
        )
        bounds = SHARE_CHANGE if name in labels else UNBOUNDED
        rows.append({"figure": name, **_difference(total, size, bounds)})
    made = pl.DataFrame(rows)
    return with_q_values(made).with_columns(pl.col(pl.Float64).fill_nan(None))


def _difference(total: list[Floats], size: list[Floats], bounds: Bounds) -> dict[str, float | int]:
    """Return two ratios of sums, and their difference, within bounds, over documents."""
    kept = (size[0] > 0) & (size[1] > 0)
    documents = int(kept.sum())
    nan = float("nan")
    names = ("first", "second", "difference", "low", "high", "p")
    if not documents:
        return {"documents": 0, **dict.fromkeys(names, nan)}
    means, moved = [], []
    for sums, tokens in zip(total, size, strict=True):
        mean = sums[kept].sum() / tokens[kept].sum()
        means.append(float(mean))
        moved.append((sums[kept] - mean * tokens[kept]) / tokens[kept].sum())
    difference = means[1] - means[0]
    few = documents / max(1, documents - 1)
    error = float(np.sqrt(few * ((moved[1] - moved[0]) ** 2).sum()))
    margin = student_margin(error, documents)
    if documents == 1:
        p = nan
    elif error:
        p = float(2 * stats.t.sf(abs(difference) / error, documents - 1))
    else:  # all documents differ by the same, as where a site runs for all tokens or for none
        p = 0.0 if difference else nan
    low, high = interval_ends(difference, margin, bounds)
    found = (*means, difference, float(low), float(high), p)
    return {"documents": documents, **dict(zip(names, found, strict=True))}
