"""Which clusters the tokens of a whole corpus belong to, by clusters made on a sample."""

from __future__ import annotations

import io
from collections.abc import Iterator

import polars as pl

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import part_file
from skipviz.corpus.questions.groups import By, Groups
from skipviz.corpus.questions.means import group_sums, ratios
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.reading.stored_clusters import CLUSTERS_FILE, CLUSTERS_FOLDER
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
        pl.col("mean").alias("share"), "low", "high",
    )  # fmt: skip


def assigned(corpus: CorpusDataset, clusters: Clusters) -> Iterator[pl.DataFrame]:
    """Yield, part by part, what ``assigned_part`` returns."""
    for name in corpus.parts:
        yield assigned_part(corpus, clusters, name)


def assigned_part(corpus: CorpusDataset, clusters: Clusters, name: str) -> pl.DataFrame:
    """Return the cluster of each token of a part.

    Parameters
    ----------
    corpus, clusters
        As of ``cluster_shares``.
    name
        Of the part.

    Returns
    -------
    pl.DataFrame
        ``document``, ``position``, and ``cluster``, null for none.
    """
    document, traced = corpus.part_trace(name)
    known = clusters.assign(traced)
    return pl.DataFrame(
        {"document": document, "position": known["position"], "cluster": known["cluster"]}
    )


def store_clusters(
    corpus: CorpusDataset, clusters: Clusters, *, progress: Progress = no_progress
) -> None:
    """Find the cluster of every token, and store it beside the dataset, in the place of others.

    Parameters
    ----------
    corpus
        What ``skipviz.open_corpus`` returned, of a run that has ended.
    clusters
        What ``skipviz.cluster`` found, as in ``corpus.sample().trace``.
    progress
        Called with the share of the tokens done, 0 to 1.

    Raises
    ------
    InputError
        If the run has not ended, the clusters are of another model, or nothing can be written.
    """
    if not corpus.complete:
        raise InputError(
            f"The run that writes {corpus.called} has not ended. Clusters are stored for all "
            "tokens; wait for its end."
        )
    folder = DatasetFolder(corpus.where, called=corpus.called)
    done = 0
    with folder.held():
        folder.remove(CLUSTERS_FILE)  # what is there by then is not of one kind
        for name, rows in corpus.parts.items():
            data = io.BytesIO()
            assigned_part(corpus, clusters, name).write_parquet(data)
            path = part_file(CLUSTERS_FOLDER, name)
            folder.commit(folder.stage(path, data.getvalue(), rows=rows))
            done += rows
            progress(done / max(1, len(corpus)))
        said = io.BytesIO()
        clusters.save(said)
        folder.commit(folder.stage(CLUSTERS_FILE, said.getvalue(), rows=1))
