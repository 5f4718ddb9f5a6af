"""What clusters in a file keep to: alone, and beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.clusters.grouping import CLUSTERING_METHODS, METRICS
from skipviz.analysis.clusters.profiles import PROFILE_VALUES, SCORE_CLIP
from skipviz.errors import InputError
from skipviz.invariants import MOST_LAYERS, MOST_NUMBER, all_given, numbered, within
from skipviz.schema import site_label

LARGEST_SCORE = 1e30
_SLACK = 1e-9
MAY_BE_UNKNOWN = {
    "run": ("model", "weights_sha256", "p_continuum", "stability"),
    "tokens": ("cluster", "distance"),
    "profiles": ("score",),
    "criterion": ("continuum", "continuum_high"),
    "references": ("cluster",),
}
"""Columns that may hold nulls."""


def check_clusters(tables: Mapping[str, pl.DataFrame]) -> None:
    """Check the tables of clusters, whose columns are as they should be.

    Raises
    ------
    InputError
        Names what is wrong; a ``TraceError`` is one. So do all functions here.
    """
    for name, table in tables.items():
        unknown = MAY_BE_UNKNOWN.get(name, ())
        all_given(table, name, tuple(each for each in table.columns if each not in unknown))
    _check_whole(tables)
    on = _check_run(tables["run"])
    _check_sites(tables["sites"])
    references = tables["references"]
    profile = references["profile"].explode(empty_as_null=True, keep_nulls=True)
    low, high = (0.0, 1.0) if on == "executed" else (-SCORE_CLIP, SCORE_CLIP)
    if profile.null_count() or not profile.is_between(low - _SLACK, high + _SLACK).all():
        raise InputError(f"references.profile must be numbers from {low:g} to {high:g}.")
    count = _check_labels(references, hdbscan=tables["run"]["method"].item() == "hdbscan")
    _check_tokens(tables["tokens"], count)
    _check_profiles(tables)
    criterion = tables["criterion"]
    within(criterion, "criterion", "clusters", 0, MOST_NUMBER)
    for name in criterion.columns[1:]:
        within(criterion, "criterion", name, -1 - _SLACK, 1 + _SLACK)


def _check_whole(tables: Mapping[str, pl.DataFrame]) -> None:
    run, references, sites = tables["run"], tables["references"], tables["sites"]
    width = references["profile"].dtype.shape[0]  # type: ignore[attr-defined]
    if run.height != 1 or width != sites.height or not references.height:
        raise InputError(
            f"There are {run.height} runs, {references.height} reference profiles of {width} "
            f"sites and {sites.height} sites, which do not go together."
        )


def _check_run(run: pl.DataFrame) -> str:
    row: dict[str, Any] = run.row(0, named=True)
    words = {"on": PROFILE_VALUES, "method": CLUSTERING_METHODS, "metric": METRICS}
    for column, valid in words.items():
        if row[column] not in valid:
            raise InputError(
                f"There are clusters with {column}={row[column]!r:.80}, which is not one of "
                f"{', '.join(valid)}."
            )
    kmeans_of_jaccard = row["metric"] == "jaccard" and row["method"] == "kmeans"
    if (row["on"] == "score") != (row["metric"] == "euclidean") or kmeans_of_jaccard:
        raise InputError(
            f"on={row['on']!r}, method={row['method']!r} and metric={row['metric']!r} do not go "
            "together."
        )
    for name in ("p", "p_continuum"):
        within(run, "run", name, 0, 1)
    within(run, "run", "stability", -1, 1)
    return str(row["on"])


def _check_sites(sites: pl.DataFrame) -> None:
    numbered(sites, "site")
    within(sites, "sites", "layer", 0, MOST_LAYERS)
    within(sites, "sites", "visit", 0, MOST_LAYERS)
    within(sites, "sites", "centre", -LARGEST_SCORE, LARGEST_SCORE)
    within(sites, "sites", "spread", np.nextafter(0.0, 1.0), LARGEST_SCORE)
    for label, *place in sites.select("label", "layer", "unit", "visit").rows():
        if place[1] not in ("block", "attn", "mlp") or label != site_label(*place):
            raise InputError(f"sites.label is {label!r:.80} for the unit {place[1]!r:.80}.")
    if sites.select("layer", "unit", "visit").is_duplicated().any():
        raise InputError("sites has the same layer, unit and visit twice.")


def _check_labels(references: pl.DataFrame, *, hdbscan: bool) -> int:
    """Return how many clusters there are, if they are numbered from 0."""
    labels = sorted(references["cluster"].drop_nulls().unique())
    if labels != list(range(len(labels))) or not labels:
        raise InputError("references.cluster must number clusters from 0, without gaps.")
    if references["cluster"].null_count() and not hdbscan:
        raise InputError("references.cluster has nulls, which are HDBSCAN's alone.")
    return len(labels)


def _check_tokens(tokens: pl.DataFrame, count: int) -> None:
    for name in ("trace", "token", "sequence", "position"):
        within(tokens, "tokens", name, 0, MOST_NUMBER)
    within(tokens, "tokens", "cluster", 0, count - 1)
    within(tokens, "tokens", "distance", 0, LARGEST_SCORE)
    if (tokens["distance"].is_not_null() & tokens["cluster"].is_null()).any():
        raise InputError("A token of no cluster has a distance from one.")
    trace = tokens["trace"].to_numpy()
    numbers = np.arange(tokens.height) - np.searchsorted(trace, trace)
    if (np.diff(trace) < 0).any():
        raise InputError("tokens.trace must be in order.")
    if not np.array_equal(tokens["token"].to_numpy(), numbers):
        raise InputError("tokens.token must be numbered from 0 in each trace, without gaps.")


def _check_profiles(tables: Mapping[str, pl.DataFrame]) -> None:
    """Check the mean profiles, one row per cluster that has tokens and site."""
    profiles, sites = tables["profiles"], tables["sites"]
    within(profiles, "profiles", "rate", 0, 1)
    within(profiles, "profiles", "score", -LARGEST_SCORE, LARGEST_SCORE)
    sizes = (
        tables["tokens"]
        .drop_nulls("cluster")
        .group_by("cluster")
        .agg(tokens=pl.len().cast(pl.Int64))
        .sort("cluster")
    )
    wanted = sizes.join(sites.select("site", "label", "layer", "unit"), how="cross")
    if not profiles.select(wanted.columns).equals(wanted):
        raise InputError("profiles must have one row per cluster and site, as tokens and sites do.")
