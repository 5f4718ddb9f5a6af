"""Ways to put profiles into groups, how clear those are, and which one a profile is next to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skipviz.arrays import Floats, Ints

ClusteringMethod = Literal["kmeans", "agglomerative", "hdbscan"]
CLUSTERING_METHODS: tuple[ClusteringMethod, ...] = ("kmeans", "agglomerative", "hdbscan")
Metric = Literal["hamming", "jaccard", "euclidean"]
METRICS: tuple[Metric, ...] = ("hamming", "jaccard", "euclidean")
NO_CLUSTER = -1
"""Label of what belongs to no group."""
KMEANS_STARTS = 4
"""How often k-means begins anew."""
MIN_CLUSTER_SHARE = 0.1
"""Share of the profiles that the smallest group of HDBSCAN has; with less, binary profiles fall
into many groups of the few that are equal."""
MIN_SAMPLES = 5
"""How many profiles must be near one for HDBSCAN to call the place dense."""
PROFILES_AT_ONCE = 1024
"""Profiles whose distances to all references are held at once."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Groups of profiles, with which a profile is compared.

    Attributes
    ----------
    references
        Profiles of shape [references, sites]: the centres of k-means, or all that were grouped.
    labels
        The group of each, from 0; -1 where it belongs to none.
    """

    references: Floats
    labels: Ints


@dataclass(frozen=True, kw_only=True)
class Grouper:
    """A way to make groups.

    Attributes
    ----------
    method
        ``kmeans`` (Lloyd, "Least squares quantization in PCM", 1982); ``agglomerative``, by Ward's
        criterion, or by complete linkage of Jaccard distances; ``hdbscan`` (Campello, Moulavi and
        Sander, "Density-based clustering based on hierarchical density estimates", 2013).
    metric
        Distance of two profiles, as ``distances`` has it.
    seed
        Of the starts of k-means.
    """

    method: ClusteringMethod
    metric: Metric
    seed: int

    def group(self, profiles: Floats, count: int | None) -> Grouping:
        """Put profiles, [tokens, sites], into ``count`` groups, or as many as HDBSCAN finds."""
        if count == 1:
            one = profiles.mean(axis=0, keepdims=True)
            return Grouping(references=one, labels=np.zeros(1, dtype=np.int64))
        (labels,) = self.labels(profiles, [count])
        if self.method != "kmeans":
            return Grouping(references=profiles, labels=labels)
        centres = [profiles[labels == label].mean(axis=0) for label in np.unique(labels)]
        return Grouping(references=np.stack(centres), labels=np.arange(len(centres)))

    def labels(self, profiles: Floats, counts: Sequence[int | None]) -> list[Ints]:
        """Return the group of each profile, [tokens], for each number of groups."""
        if self.method == "kmeans":
            return [self._kmeans(profiles, count) for count in counts]
        if self.method == "agglomerative":
            return self._agglomerative(profiles, counts)
        return [self._hdbscan(profiles)]

    def _kmeans(self, profiles: Floats, count: int | None) -> Ints:
        from sklearn.cluster import KMeans

        model = KMeans(count, n_init=KMEANS_STARTS, random_state=self.seed)
        return np.asarray(model.fit_predict(profiles), dtype=np.int64)

    def _agglomerative(self, profiles: Floats, counts: Sequence[int | None]) -> list[Ints]:
        from scipy.cluster.hierarchy import cut_tree, linkage
        from scipy.spatial.distance import squareform

        if self.metric == "jaccard":
            apart = distances(profiles, profiles, self.metric)
            tree = linkage(squareform(apart, checks=False), "complete")
        else:
            # The squared Euclidean distance of two binary profiles counts the sites that differ.
            tree = linkage(profiles, "ward")
        # One tree for all numbers of groups; making it takes the time.
        return list(np.asarray(cut_tree(tree, list(counts)), dtype=np.int64).T)

    def _hdbscan(self, profiles: Floats) -> Ints:
        from sklearn.cluster import HDBSCAN

        model = HDBSCAN(
            min_cluster_size=max(MIN_SAMPLES, round(MIN_CLUSTER_SHARE * len(profiles))),
            min_samples=MIN_SAMPLES,
            metric="precomputed",
            copy=False,
        )
        apart = distances(profiles, profiles, self.metric)
        return np.asarray(model.fit_predict(apart), dtype=np.int64)


def distances(left: Floats, right: Floats, metric: Metric) -> Floats:
    """Return the distance of each profile from each other one, [left, right].

    Parameters
    ----------
    left, right
        Profiles of shape [n, sites].
    metric
        ``hamming``, the mean squared difference, which for binary profiles is the share of sites
        that differ; ``jaccard``, of the sites that ran for either the share that did not for
        both; ``euclidean``. 0 to 1 but for the last.
    """
    inner = left @ right.T
    if metric == "jaccard":
        either = left.sum(axis=1)[:, None] + right.sum(axis=1) - inner
        found: Floats = 1.0 - inner / np.where(either > 0, either, 1.0)
        found[either <= 0] = 0.0
    else:
        squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * inner
        found = np.maximum(squares, 0.0)
        found = found / left.shape[1] if metric == "hamming" else np.sqrt(found)
    if left is right:
        np.fill_diagonal(found, 0.0)
    return found


def nearest_group(grouping: Grouping, profiles: Floats, metric: Metric) -> Ints:
    """Return the group of the nearest reference of each profile, [tokens]."""
    parts = [
        distances(profiles[start : start + PROFILES_AT_ONCE], grouping.references, metric).argmin(
            axis=1
        )
        for start in range(0, len(profiles), PROFILES_AT_ONCE)
    ]
    found: Ints = grouping.labels[np.concatenate(parts)]
    return found


def silhouette(apart: Floats, labels: Ints) -> float:
    """Return how clear groups are: the mean silhouette, -1 to 1.

    How much nearer a profile is to its own group than to the next (Rousseeuw, "Silhouettes: a
    graphical aid to the interpretation and validation of cluster analysis", 1987). One that
    belongs to no group counts 0.

    Parameters
    ----------
    apart
        Distances, [tokens, tokens].
    labels
        The group of each.

    Returns
    -------
    float
        0 if there are fewer than two groups.
    """
    from sklearn.metrics import silhouette_samples

    inside = labels != NO_CLUSTER
    groups = len(np.unique(labels[inside]))
    if not 2 <= groups < inside.sum():
        return 0.0
    if not inside.all():
        apart = apart[np.ix_(inside, inside)]
    each = silhouette_samples(apart, labels[inside], metric="precomputed")
    return float(each.sum() / len(labels))
