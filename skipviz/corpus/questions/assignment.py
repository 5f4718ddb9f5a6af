"""Which clusters the tokens of a whole corpus belong to, by clusters made on a sample."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.corpus.questions.groups import By, Groups
from skipviz.corpus.questions.means import group_sums, ratios
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import InputError
from skipviz.progress import Progress, no_progress


def cluster_shares(
    corpus: CorpusDataset,
    clusters: Clusters,
    *,
    by: By = None,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """Return the share of all tokens that belong to each cluster, by group of documents.

    Parameters
    ----------
    corpus
        What ``skipviz.open_corpus`` returned.
    clusters
        What ``skipviz.cluster`` found, as in ``corpus.sample().trace``.
    by
        Columns of documents; None: all tokens are one group.
    progress
        Called with the share of the tokens done, 0 to 1.

    Returns
    -------
    pl.DataFrame
        One row per group and cluster: the columns of ``by``; ``cluster``; ``documents``,
        ``tokens`` of the group; ``share``, 0 to 1, of tokens in the cluster, with its 95% interval
        over documents ``low`` to ``high``.

    Raises
    ------
    InputError
        If there is no such column, or the clusters are of another model.
    """
    groups = Groups.of(corpus, by)
    if groups.of_tokens:
        raise InputError(
            f"Clusters are counted by columns of documents; leave out {groups.of_tokens[0]}."
        )
    names = [str(number) for number in range(clusters.count)]
    found, done = [], 0
    for part in assigned(corpus, clusters):
        counted = (
            part.lazy()
            .group_by("document")
            .agg(
                pl.len().alias("tokens"),
                *((pl.col("cluster") == int(name)).sum().alias(name) for name in names),
            )
        )
        found.append(group_sums(corpus, counted, names, groups))
        done += part.height
        progress(done / max(1, len(corpus)))
    return ratios(found, names, groups).select(
        *groups.shown, pl.col("value").cast(pl.Int64).alias("cluster"), "documents", "tokens",
        pl.col("mean").alias("share"), pl.col("low").clip(0.0, 1.0), pl.col("high").clip(0.0, 1.0),
    )  # fmt: skip


def assigned(corpus: CorpusDataset, clusters: Clusters) -> Iterator[pl.DataFrame]:
    """Yield, part by part, the cluster of each token.

    Parameters
    ----------
    corpus, clusters
        As of ``cluster_shares``.

    Returns
    -------
    iterator of pl.DataFrame
        ``document``, ``position``, and ``cluster``, null for none.
    """
    for document, traced in corpus.numbered_traces():
        known = clusters.assign(traced)
        yield pl.DataFrame(
            {"document": document, "position": known["position"], "cluster": known["cluster"]}
        )
