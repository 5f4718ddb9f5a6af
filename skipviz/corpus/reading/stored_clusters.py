"""Clusters that were assigned to all tokens of a dataset once, and lie beside them.

``clusters/clusters.parquet`` says what the clusters are, a file per part which token is in which.
"""

from __future__ import annotations

import io

import polars as pl

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import part_file
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.errors import StoreError

CLUSTERS_FOLDER = "clusters"
CLUSTERS_FILE = f"{CLUSTERS_FOLDER}/clusters.parquet"


def stored_clusters(corpus: CorpusDataset) -> Clusters | None:
    """Return the clusters that are stored for all tokens of a dataset; None where none are.

    Those that were stored before it grew are not.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    folder = DatasetFolder(corpus.where, called=corpus.called)
    there = folder.names(CLUSTERS_FOLDER)
    if not {f"{name}.parquet" for name in corpus.parts} | {"clusters.parquet"} <= there:
        return None
    try:
        with folder.open(CLUSTERS_FILE) as file:
            data = file.read()
    except FileNotFoundError:  # others are being stored
        return None
    return Clusters.load(io.BytesIO(data))


def undamaged_clusters(corpus: CorpusDataset) -> Clusters | None:
    """Return the clusters that are stored, as a search can do without: None if damaged, too."""
    try:
        return stored_clusters(corpus)
    except StoreError:
        return None


def clusters_of_part(corpus: CorpusDataset, name: str) -> pl.LazyFrame:
    """Return the stored clusters of a part: ``document``, ``position``, ``cluster``."""
    folder = DatasetFolder(corpus.where, called=corpus.called)
    rows = pl.scan_parquet(folder.path(part_file(CLUSTERS_FOLDER, name)), glob=False)
    return rows.select("document", "position", "cluster")
