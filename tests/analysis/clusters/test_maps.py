from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.clusters import maps as cluster_maps
from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.grouping import distances
from skipviz.analysis.clusters.maps import map_profiles
from skipviz.analysis.clusters.profiles import raw_profiles
from skipviz.traces import Trace
from tests.profiles import planted, trace_of
from tests.synthetic import make_trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    return trace_of(planted(0)[0])


@pytest.fixture(scope="module")
def found(trace: Trace) -> Clusters:
    return cluster(trace, clusters=4)


def spread(points: pl.DataFrame, groups: np.ndarray) -> float:
    """How far apart groups lie on a map, over how wide they are."""
    places = points.select("x", "y").to_numpy()
    centres = np.stack([places[groups == group].mean(axis=0) for group in np.unique(groups)])
    inside = np.mean([places[groups == group].std() for group in np.unique(groups)])
    apart = distances(centres, centres, "euclidean")
    return float(apart[np.triu_indices(len(centres), 1)].min() / inside)


def test_principal_components_are_those_of_a_plain_decomposition(
    trace: Trace, found: Clusters
) -> None:
    mapped = map_profiles(found, trace)
    profiles = raw_profiles([trace], "executed")
    centred = profiles - profiles.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ directions[:2].T
    places = mapped.points.select("x", "y").to_numpy()
    assert np.abs(places) == pytest.approx(np.abs(wanted), abs=1e-9)
    assert mapped.variance == pytest.approx(tuple(sizes[:2] ** 2 / (sizes**2).sum()))
    assert mapped.tokens["point"].to_list() == list(range(240)), "each token is a point"
    assert mapped.points["tokens"].to_list() == [1] * 240


@pytest.mark.long
@pytest.mark.slow
def test_umap_keeps_planted_groups_apart_and_gives_the_same_map_again() -> None:
    decisions, group = planted(0)
    trace = trace_of(decisions)
    found = cluster(trace, clusters=4)
    first, again = (map_profiles(found, trace, "umap", seed=3) for _ in range(2))
    assert first.points.equals(again.points)
    assert first.variance is None
    assert spread(first.points, group) > 2
    assert spread(first.points, np.random.default_rng(0).permutation(group)) < 1


def test_tokens_off_the_map_have_the_nearest_profile_stand_for_them(
    trace: Trace, found: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_maps, "MAX_POINTS", 50)
    several = [trace_of(planted(0)[0][:100]), trace_of(planted(0)[0][100:])]
    mapped = map_profiles(found, several, seed=1)
    assert mapped.points.height == 50
    assert mapped.points["tokens"].sum() == 240
    assert mapped.tokens.select("trace", "token").rows() == [
        *((0, token) for token in range(100)),
        *((1, token) for token in range(140)),
    ]
    profiles = raw_profiles(several, "executed")
    rows = {place: row for row, place in enumerate(mapped.tokens.select("trace", "token").rows())}
    of_point = [rows[place] for place in mapped.points.select("trace", "token").rows()]
    for row, point in enumerate(mapped.tokens["point"].to_list()):
        away = [(profiles[row] != profiles[other]).sum() for other in of_point]
        assert away[point] == min(away)
    assert mapped.tokens["point"][of_point].to_list() == list(range(50))


@pytest.mark.slow
def test_scores_are_mapped_where_clusters_are_made_on_them(trace: Trace) -> None:
    mapped = map_profiles(cluster(trace, "score", clusters=4), trace)
    assert mapped.points["x"].std() > 1, "standard deviations, not shares"


@pytest.mark.slow
def test_texts_that_are_all_alike_are_one_place(found: Clusters) -> None:
    same = trace_of(np.ones((30, 24), dtype=np.uint8))
    mapped = map_profiles(found, same)
    assert mapped.points.select(pl.col("x", "y").n_unique()).row(0) == (1, 1)
    assert mapped.variance == (0.0, 0.0)
    assert map_profiles(found, same, "umap").points["x"].is_finite().all()


def test_what_cannot_be_mapped_gets_a_sentence(found: Clusters) -> None:
    short = trace_of(planted(0)[0][:15])
    assert map_profiles(found, short).points.height == 15
    with pytest.raises(ValueError, match="15 tokens are too few for UMAP"):
        map_profiles(found, short, "umap")
    with pytest.raises(ValueError, match="give traces of one model"):
        map_profiles(found, make_trace())
    with pytest.raises(ValueError, match="0 tokens"):
        map_profiles(found, trace_of(planted(0)[0][:0]))


def test_a_missing_umap_says_what_to_install(
    trace: Trace, found: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "umap":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"skipviz\[clusters\]"):
        map_profiles(found, trace, "umap")
