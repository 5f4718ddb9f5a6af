"""Clusters of tokens by depth profile: which tokens use the same layers, if any do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from skipviz.analysis.clusters.clustered import (
    Clusters,
    clustered_tokens,
    mean_profiles,
    reference_table,
)
from skipviz.analysis.clusters.grouping import (
    CLUSTERING_METHODS,
    METRICS,
    NO_CLUSTER,
    ClusteringMethod,
    Grouper,
    Grouping,
    Metric,
    nearest_group,
)
from skipviz.analysis.clusters.profiles import (
    ProfileValue,
    raw_profiles,
    scale_of,
    scaled,
)
from skipviz.analysis.clusters.significance import ALPHA, judge, sample_tokens, split_half_agreement
from skipviz.analysis.clusters.storage import CLUSTER_RUN
from skipviz.analysis.one_model import traces_of_one_model
from skipviz.arrays import Floats
from skipviz.errors import InputError
from skipviz.progress import Progress, check_seed, no_progress
from skipviz.text.arguments import checked
from skipviz.traces import Trace

MAX_CLUSTERS = 8
"""Clusters tried at most: more have no colours that all can tell apart."""
MIN_TOKENS = 40
MAX_GROUPED_TOKENS = 5000
"""Tokens that are grouped; further ones go to the nearest cluster."""


@checked
def cluster(
    traces: Trace | Sequence[Trace],
    on: ProfileValue = "executed",
    *,
    method: ClusteringMethod = "kmeans",
    metric: Metric | None = None,
    clusters: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Clusters:
    """Group tokens by the layers they used, and say whether there are groups at all.

    The number of clusters is the one with the highest mean silhouette, from 2 to 8, and 1 unless
    it is higher than 19 of 20 are for profiles shuffled within sites. Shuffling keeps how often
    each site runs, and mostly which tokens are neighbours; so tokens are divided where sites
    decide together. That they are groups is claimed, as ``found``, where they are also clearer
    than a continuum of the same correlations (``p_continuum``); else they are parts of one.

    Parameters
    ----------
    traces
        One or several, of one model.
    on
        ``executed``: which sites ran; ``score``: what their gates said, each site's scores scaled
        by median and quartiles.
    method
        ``kmeans``, ``agglomerative`` or ``hdbscan``; the last finds the number of clusters itself
        and leaves tokens out.
    metric
        ``hamming`` or, but for k-means, ``jaccard`` for decisions, ``euclidean`` for scores; the
        first that fits if None.
    clusters
        Number of clusters; by silhouette, or by HDBSCAN, if None. A number that is given is made
        whatever the test says.
    seed
        Of k-means, shuffling and resampling.
    progress
        Called with the share done, 0 to 1.

    Returns
    -------
    Clusters
        At most 5,000 tokens are grouped; further ones go to the nearest cluster.

    Raises
    ------
    ValueError
        If the traces do not go together, have too few tokens or sites that never differ, or if
        method, metric and number do not go together.

    Examples
    --------
    >>> found = skipviz.cluster(trace, clusters=2)
    >>> found.tokens.select("token", "cluster").height
    40
    >>> found.run["p"].item() < 0.05  # whether the tokens form groups at all
    True
    """
    check_seed(seed)
    several = traces_of_one_model(traces)
    raw = raw_profiles(several, on)
    chosen_metric = _metric(on, method, metric)
    _check(raw, method, clusters)
    scale = scale_of(raw, on)
    profiles = scaled(raw, scale)
    grouped = profiles[
        sample_tokens(len(profiles), MAX_GROUPED_TOKENS, np.random.default_rng(seed))
    ]
    grouper = Grouper(method=method, metric=chosen_metric, seed=seed)
    # Several hundred small groupings: threads that wait for each other would take the time.
    with threadpool_limits(1, user_api="openmp"):
        counts = _counts(grouped, method, clusters)
        verdict = judge(grouped, grouper, counts=counts, seed=seed, progress=progress)
        wanted = clusters if clusters is not None else verdict.best
        if clusters is None and (verdict.p > ALPHA or verdict.best < 2):
            wanted = 1
        asked = wanted if method != "hdbscan" or wanted == 1 else None
        grouping = _by_size(grouper.group(grouped, asked), grouped, chosen_metric)
        agreed = (
            split_half_agreement(grouped, grouper, count=asked, seed=seed) if wanted > 1 else []
        )
    tokens = clustered_tokens(several, profiles, grouping, chosen_metric)
    run = {
        "model": several[0].run["model"][0],
        "weights_sha256": several[0].run["weights_sha256"][0],
        "on": on,
        "method": method,
        "metric": chosen_metric,
        "seed": seed,
        "chosen": clusters is not None,
        "p": verdict.p,
        "p_continuum": verdict.p_continuum,
        "stability": float(np.mean(agreed)) if agreed else None,
    }
    sites = (
        several[0]
        .sites.select("site", "label", "layer", "unit", "visit")
        .with_columns(centre=pl.Series(scale.centre), spread=pl.Series(scale.spread))
    )
    return Clusters(
        run=pl.DataFrame([run], schema=CLUSTER_RUN),
        sites=sites,
        tokens=tokens,
        profiles=mean_profiles(several, tokens),
        criterion=verdict.criterion,
        references=reference_table(grouping),
    )


def _metric(on: ProfileValue, method: ClusteringMethod, metric: Metric | None) -> Metric:
    if method not in CLUSTERING_METHODS:
        raise InputError(f"method={method!r} is not one of {', '.join(CLUSTERING_METHODS)}.")
    if metric is not None and metric not in METRICS:
        raise InputError(f"metric={metric!r} is not one of {', '.join(METRICS)}.")
    if on == "score":
        if metric not in (None, "euclidean"):
            raise InputError(f"metric={metric!r} compares decisions; scores take 'euclidean'.")
        return "euclidean"
    if metric == "euclidean":
        raise InputError("metric='euclidean' compares scores; decisions take 'hamming'.")
    if metric == "jaccard" and method == "kmeans":
        raise InputError(
            "k-means has no Jaccard distance, whose means are no means; take "
            "method='agglomerative' or 'hdbscan', or metric='hamming'."
        )
    return metric or "hamming"


def _check(raw: Floats, method: ClusteringMethod, clusters: int | None) -> None:
    tokens, sites = raw.shape
    if not sites:
        raise InputError("The model has no gates, so all profiles are alike; trace a gated one.")
    if tokens < MIN_TOKENS:
        raise InputError(
            f"{tokens} tokens are too few to tell clusters from chance; give {MIN_TOKENS} or more."
        )
    if (raw == raw[0]).all():
        raise InputError(
            "Every token has the same profile, so there is nothing to group. A policy that looks "
            "at the token gives profiles that differ."
        )
    if clusters is None:
        return
    if method == "hdbscan":
        raise InputError(
            f"HDBSCAN finds the number of clusters itself; leave clusters={clusters} out, or take "
            "method='kmeans'."
        )
    if not 2 <= clusters <= MAX_CLUSTERS:
        raise InputError(f"clusters={clusters} must be from 2 to {MAX_CLUSTERS}.")
    distinct = len(np.unique(raw, axis=0))
    if clusters > distinct:
        raise InputError(
            f"clusters={clusters} is more than the {distinct} profiles there are; ask for fewer."
        )


def _counts(profiles: Floats, method: ClusteringMethod, clusters: int | None) -> list[int | None]:
    if method == "hdbscan":
        return [None]
    if clusters is not None:
        return [clusters]
    distinct = len(np.unique(profiles, axis=0))
    return list(range(2, min(MAX_CLUSTERS, distinct) + 1))


def _by_size(grouping: Grouping, profiles: Floats, metric: Metric) -> Grouping:
    """Return the groups numbered from the largest."""
    labels = nearest_group(grouping, profiles, metric)
    sizes = np.bincount(labels[labels != NO_CLUSTER], minlength=int(grouping.labels.max()) + 1)
    place = np.argsort(np.argsort(-sizes, kind="stable"))
    numbered = np.where(grouping.labels == NO_CLUSTER, NO_CLUSTER, place[grouping.labels])
    return Grouping(references=grouping.references, labels=numbered)
