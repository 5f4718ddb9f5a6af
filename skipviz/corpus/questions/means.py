"""Means over all tokens of a corpus, by group, with intervals over documents.

A mean is a ratio of two sums, over documents, of what each adds and of how many tokens it has. So
its interval needs of each group six sums alone, which are taken in one pass; it is that of
``clustered_error`` with documents for groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import polars.selectors as cs
from scipy import stats

from skipviz.analysis.statistics.intervals import (
    ANY_SHARE,
    BOUNDS,
    SHARE_CHANGE,
    UNBOUNDED,
    Bounds,
    interval_ends,
    student_margin,
)
from skipviz.analysis.statistics.multiple_tests import with_q_values
from skipviz.arrays import Floats
from skipviz.corpus.questions.groups import By, Groups
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import InputError
from skipviz.progress import Progress, no_progress

FIGURES = ("layers_used", "exit_depth", "surprisal", "nll", "entropy", "context")
"""Columns of ``tokens`` that have a mean; every site has one besides, its execution rate."""
_SUMS = ("total", "tokens", "squares", "products", "sizes", "documents")


def corpus_means(
    corpus: CorpusDataset,
    values: Sequence[str] = ("layers_used", "nll"),
    *,
    by: By = None,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return means over tokens, by group.

    Parameters
    ----------
    corpus
        What ``skipviz.open_corpus`` returned.
    values
        Of ``FIGURES``, and labels of sites.
    by
        Columns of the corpus's documents, such as a domain or whether an answer was correct;
        ``kind``, what a token is by its text alone; ``phase``. Several give a row for each
        combination; None: all tokens are one group.
    progress
        Called with the share of the tokens done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        One row per group and value, groups sorted: the columns of ``by``; ``value``; ``documents``
        and ``tokens`` for which it is known; ``mean``, with its 95% interval over documents
        ``low`` to ``high``, and ``error``, its standard error, null for a single document.

    Raises
    ------
    InputError
        If there is no such value or column.
    """
    groups = Groups.of(corpus, by)
    wanted = list(dict.fromkeys(values))
    unknown = [name for name in wanted if name not in (*FIGURES, *corpus.labels)]
    if unknown or not wanted:
        raise InputError(
            f"There is no mean of {unknown[0]!r:.40}; there are {', '.join(FIGURES)} and labels of "
            "sites." if unknown else "No value was named; name one, such as layers_used."
        )  # fmt: skip
    return ratios(_sums_of_steps(corpus, wanted, groups, progress), wanted, groups)


def _sums_of_steps(
    corpus: CorpusDataset, wanted: list[str], groups: Groups, progress: Progress
) -> list[pl.DataFrame]:
    """Return what each step over the corpus adds to the sums of each group."""
    rates = set(corpus.labels)
    each: list[pl.Expr] = [pl.len().alias("tokens")]
    for name in wanted:
        if name in rates:
            each.append(pl.col(name).sum())
        else:
            each.append(pl.col(name).cast(pl.Float64).sum())
            each.append(pl.col(name).count().alias(f"{name} known"))
    found = []
    total = max(1, sum(corpus.parts.values()))
    done = 0
    for rows in corpus.steps():
        sums = groups.of_rows(corpus, rows).group_by(groups.keys).agg(each)
        found.append(group_sums(corpus, sums, wanted, groups))
        done += int(found[-1]["rows"].sum())
        progress(min(1.0, done / total))
    return found


def group_sums(
    corpus: CorpusDataset, sums: pl.LazyFrame, wanted: Sequence[str], groups: Groups
) -> pl.DataFrame:
    """Return the sums over documents that means and their errors are made of.

    Parameters
    ----------
    corpus
        Whose documents they are.
    sums
        A row per document, and per class of its tokens: ``tokens``, the sum of each value, and
        ``... known``, for how many tokens it is, where not for all.
    wanted
        The values.
    groups
        What documents are grouped by.
    """
    named = set(sums.collect_schema().names())
    each: list[pl.Expr] = [pl.col("tokens").cast(pl.Int64).sum().alias("rows")]
    for name in wanted:
        total = pl.col(name).cast(pl.Float64)
        size = pl.col(f"{name} known" if f"{name} known" in named else "tokens").cast(pl.Float64)
        parts = (total, size, total**2, total * size, size**2, size > 0)
        each += [
            part.sum().alias(f"{name} {kind}") for kind, part in zip(_SUMS, parts, strict=True)
        ]
    joined = groups.of_documents(corpus, sums)
    keys = groups.columns
    return corpus.collect(joined.group_by(keys).agg(each) if keys else joined.select(each))


def ratios(found: Sequence[pl.DataFrame], wanted: Sequence[str], groups: Groups) -> pl.DataFrame:
    """Return means and their intervals, of the sums that the steps over a corpus added.

    Parameters
    ----------
    found
        What ``group_sums`` returned, a frame per step.
    wanted, groups
        As it had them.
    """
    keys = groups.columns
    summed = pl.concat(found)
    added = [pl.col(name).sum() for name in summed.columns if name not in keys]
    table = summed.group_by(keys).agg(added).sort(keys) if keys else summed.select(added)
    table = table.with_columns(cs.enum().cast(pl.String))
    figures = _figures(
        {kind: table.select(f"{name} {kind}" for name in wanted).to_numpy() for kind in _SUMS},
        [BOUNDS.get(name, ANY_SHARE) for name in wanted],
    )
    place = np.repeat(np.arange(table.height), len(wanted))
    return pl.DataFrame(
        {
            **{shown: table[key][place] for key, shown in zip(keys, groups.shown, strict=True)},
            "value": list(wanted) * table.height,
            **{name: pl.Series(each.reshape(-1)) for name, each in figures.items()},
        }
    ).with_columns(
        pl.col("documents", "tokens").cast(pl.Int64),
        pl.col("mean", "low", "high", "error").fill_nan(None),
    )


def _figures(sums: dict[str, Floats], bounds: list[Bounds]) -> dict[str, Floats]:
    """Return means with their intervals, of six sums over documents, each [groups, values].

    Values have ``bounds``.
    """
    total, tokens, squares, products, sizes, documents = (
        sums[name].astype(np.float64) for name in _SUMS
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / tokens
        # What documents add beside their share of the mean, squared; never below 0 by rounding.
        spread = np.maximum(squares - 2 * mean * products + mean**2 * sizes, 0.0)
        error = np.where(
            documents > 1, np.sqrt(documents / (documents - 1) * spread) / tokens, np.nan
        )
    counts, which = np.unique(documents, return_inverse=True)
    widths = np.array([student_margin(1.0, int(count)) for count in counts])
    margin = widths[which.reshape(documents.shape)] * error
    low, high = interval_ends(mean, margin, _each(bounds))
    return {
        "documents": documents, "tokens": tokens, "mean": mean, "low": low, "high": high,
        "error": error,
    }  # fmt: skip


def _each(bounds: list[Bounds]) -> tuple[Floats, Floats]:
    """Return the least and the largest value of several quantities, each [quantities]."""
    least, most = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
    return least, most


def corpus_rates(
    corpus: CorpusDataset, *, by: By = None, progress: Progress = no_progress
) -> pl.DataFrame:
    """Return the share of tokens for which each site ran, by group.

    Parameters
    ----------
    corpus, by, progress
        As of ``corpus_means``.

    Returns
    -------
    pl.DataFrame
        One row per group and site, in running order: the columns of ``by``; ``label``, ``layer``,
        ``unit``, ``visit``; ``documents``, ``tokens``; ``rate``, 0 to 1, with its 95% interval
        over documents ``low`` to ``high``.

    Raises
    ------
    InputError
        If the corpus has no sites, or no such column.
    """
    if not corpus.labels:
        raise InputError("The corpus has no sites, so nothing was skipped; trace a gated model.")
    return site_rates(corpus, corpus_means(corpus, corpus.labels, by=by, progress=progress), by=by)


def site_rates(corpus: CorpusDataset, means: pl.DataFrame, *, by: By = None) -> pl.DataFrame:
    """Return the rates among means, as ``corpus_rates`` does, without another pass.

    Parameters
    ----------
    corpus, by
        As of ``corpus_means``.
    means
        What it returned for all sites, and perhaps for figures besides.
    """
    table = means.filter(pl.col("value").is_in(corpus.labels))
    names = Groups.of(corpus, by).shown
    places = corpus.sites.select("label", "layer", "unit", "visit")
    return table.join(
        places, left_on="value", right_on="label", how="left", maintain_order="left"
    ).select(
        *names, pl.col("value").alias("label"), "layer", "unit", "visit", "documents", "tokens",
        pl.col("mean").alias("rate"), "low", "high",
    )  # fmt: skip


def contrast(
    corpus: CorpusDataset,
    values: Sequence[str],
    *,
    column: str,
    groups: tuple[object, object],
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return by how much means differ between two groups of documents, as correct and wrong ones.

    Parameters
    ----------
    corpus, values, progress
        As of ``corpus_means``.
    column
        One of the documents' columns.
    groups
        Two of its values: the second is taken from the first.

    Returns
    -------
    pl.DataFrame
        One row per value: ``value``; ``mean_first``, ``mean_second``; ``difference``, with its 95%
        interval over documents ``low`` to ``high``, by Welch's t; ``p`` of that it is 0, and ``q``
        after Benjamini and Hochberg over the table. Null where a group has a single document.

    Raises
    ------
    InputError
        If there is no such column or group, or tokens of one document may be in both.
    """
    if Groups.of(corpus, column).of_tokens:
        raise InputError(
            f"Documents have tokens of several groups of {column!r}; take a column of documents."
        )
    table = corpus_means(corpus, values, by=column, progress=progress)
    sides = []
    shown = Groups.of(corpus, column).shown[0]
    for group in groups:
        side = table.filter(pl.Series([each == group for each in table[shown]]))
        if side.is_empty():
            known = ", ".join(map(str, table[shown].unique(maintain_order=True)[:8]))
            raise InputError(f"{column} has no value {group!r:.40}; it has {known}.")
        sides.append(side)
    first, second = sides
    errors = np.column_stack([side["error"].fill_null(np.nan).to_numpy() for side in sides])
    sizes = np.column_stack([side["documents"].to_numpy() for side in sides])
    difference = (first["mean"] - second["mean"]).fill_null(np.nan).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt((errors**2).sum(axis=1))
        freedom = error**4 / (errors**4 / (sizes - 1)).sum(axis=1)
        # Where neither side varies, as a site that runs for all tokens of one and for none of the
        # other, any freedom gives the same.
        freedom = np.where(error == 0, 1.0, freedom)
        margin = stats.t.ppf(0.975, freedom) * error
        p = 2 * stats.t.sf(np.abs(difference) / error, freedom)
    # Of execution rates alone are both ends known.
    limits = [UNBOUNDED if name in FIGURES else SHARE_CHANGE for name in first["value"]]
    low, high = interval_ends(difference, margin, _each(limits))
    figures = {
        "difference": difference,
        "low": low,
        "high": high,
        "p": p,
    }
    made = pl.DataFrame(
        {"value": first["value"], "mean_first": first["mean"], "mean_second": second["mean"]}
    ).with_columns(pl.Series(name, each) for name, each in figures.items())
    return with_q_values(made).with_columns(pl.col(pl.Float64).fill_nan(None))
