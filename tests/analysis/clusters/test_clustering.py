from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import adjusted_rand_score

import skipviz
from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.grouping import distances, silhouette
from skipviz.analysis.clusters.profiles import Continuum, raw_profiles, scale_of, scaled
from skipviz.analysis.clusters.storage import TABLES
from skipviz.analysis.statistics.blocks import shuffled_columns
from skipviz.traces import Trace
from tests.profiles import planted, trace_of, unplanted
from tests.synthetic import make_trace

WAYS = [
    ("executed", "kmeans", None),
    ("score", "kmeans", None),
    ("executed", "agglomerative", None),
    ("executed", "agglomerative", "jaccard"),
    ("score", "agglomerative", None),
    ("executed", "hdbscan", None),
    ("executed", "hdbscan", "jaccard"),
]


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]


@cache
def recovered(
    on: Any = "executed", method: Any = "kmeans", metric: Any = None, seed: int = 0
) -> tuple[Trace, NDArray[np.int64], Clusters]:
    """A trace of three texts with planted groups, the group of each token, and what is found."""
    # Density takes more tokens to tell.
    decisions, group = planted(seed, tokens=500 if method == "hdbscan" else 240)
    trace = trace_of(decisions, seed=seed, sequences=3)
    return trace, group, cluster(trace, on, method=method, metric=metric, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("on", "method", "metric"), WAYS)
def test_planted_profiles_are_recovered(on: Any, method: Any, metric: Any, seed: int) -> None:
    _, group, found = recovered(on, method, metric, seed)
    run = found.run.row(0, named=True)
    assert (found.count, found.found) == (4, True)
    assert run["p"] == pytest.approx(0.025)
    assert run["p_continuum"] == pytest.approx(0.025), "groups apart, not a continuum"
    assert run["stability"] > 0.85
    labels = found.tokens["cluster"].to_numpy()
    inside = ~np.isnan(labels)
    assert inside.mean() > 0.85
    assert adjusted_rand_score(group[inside], labels[inside]) >= 0.95


@pytest.mark.long
@pytest.mark.slow
def test_none_are_claimed_on_shuffled_profiles() -> None:
    claimed = 0
    for seed in range(100):
        found = cluster(trace_of(unplanted(seed, tokens=100), seed=seed), seed=seed)
        claimed += found.found
        assert found.found <= (found.count > 1)
    assert claimed <= 10


@pytest.mark.slow
@pytest.mark.parametrize("method", ["agglomerative", "hdbscan"])
def test_other_methods_claim_none_either(method: Any) -> None:
    claimed = sum(
        cluster(trace_of(unplanted(seed, tokens=100)), method=method, seed=seed).found
        for seed in range(20)
    )
    assert claimed <= 3


@pytest.mark.slow
def test_neighbours_alike_are_not_clusters() -> None:
    """Sites that each go on as they were, apart from each other, have nothing in common."""
    claimed = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        changes = generator.random((2000, 24)) < 0.1
        decisions = (np.cumsum(changes, axis=0) % 2).astype(np.uint8)
        claimed += cluster(trace_of(decisions), clusters=2, seed=seed).found
    assert claimed <= 1


@pytest.mark.long
@pytest.mark.slow
def test_a_continuum_is_told_from_groups() -> None:
    generator = np.random.default_rng(0)
    depth = generator.normal(size=(500, 1))
    decisions = (depth + generator.normal(size=(500, 24)) > 0).astype(np.uint8)
    found = cluster(trace_of(decisions))
    run = found.run.row(0, named=True)
    assert run["p"] <= 0.05, "sites decide together"
    assert run["p_continuum"] > 0.05, "and yet there are no groups"
    assert not found.found
    assert "no groups" in repr(found)


@pytest.mark.slow
def test_where_there_are_none_all_tokens_are_one() -> None:
    found = cluster(trace_of(unplanted(1)))
    assert (found.found, found.count) == (False, 1)
    assert found.tokens["cluster"].to_list() == [0] * 240
    assert found.run["stability"].to_list() == [None]
    assert found.run["p_continuum"].to_list() == [None]
    forced = cluster(trace_of(unplanted(1)), clusters=3)
    assert (forced.found, forced.count) == (False, 3)
    assert forced.run["stability"][0] < 0.5


@pytest.mark.slow
def test_the_tables_say_what_the_trace_says() -> None:
    trace, _, found = recovered()
    decisions = trace.matrix("exec_count")
    columns = ["token", "source", "sequence", "position", "text"]
    assert found.tokens.select(columns).equals(trace.tokens.select(columns))
    sizes = found.tokens["cluster"].value_counts().sort("cluster")["count"].to_list()
    assert sizes == sorted(sizes, reverse=True)
    labels = found.tokens["cluster"].to_numpy()
    for number in range(found.count):
        mine = found.profiles.filter(cluster=number)
        assert mine["tokens"].unique().to_list() == [sizes[number]]
        assert mine["rate"].to_numpy() == pytest.approx(decisions[labels == number].mean(axis=0))
        scores = trace.matrix("score")[labels == number].mean(axis=0)
        assert mine["score"].to_numpy() == pytest.approx(scores, rel=1e-4)
        centre = decisions[labels == number].mean(axis=0)
        distance = ((decisions[labels == number] - centre) ** 2).mean(axis=1)
        shown = found.tokens.filter(cluster=number)["distance"].to_numpy()
        assert shown == pytest.approx(distance)
    criterion = found.criterion
    assert criterion["clusters"].to_list() == list(range(2, 9))
    assert criterion["clusters"][criterion["silhouette"].arg_max()] == 4
    best = criterion.filter(clusters=4).row(0, named=True)
    assert best["shuffled"] < best["shuffled_high"] < best["silhouette"]
    assert best["continuum_high"] < best["silhouette"]


@pytest.mark.slow
@pytest.mark.parametrize(("on", "method", "metric"), WAYS)
def test_new_texts_go_to_old_clusters(on: Any, method: Any, metric: Any, tmp_path: Path) -> None:
    first, group, found = recovered(on, method, metric)
    decisions, others = planted(0, tokens=60)
    second = trace_of(decisions)
    assert found.assign(first).equals(found.tokens), "the same text comes to the same clusters"
    if on == "executed":  # the thresholds of made-up scores differ from trace to trace
        assigned = found.assign(second)["cluster"]
        both = pl.concat([found.tokens["cluster"], assigned]).to_numpy()
        inside = ~np.isnan(both)
        assert adjusted_rand_score(np.concatenate([group, others])[inside], both[inside]) >= 0.95
    found.save(tmp_path / "clusters.parquet")
    loaded = Clusters.load(tmp_path / "clusters.parquet")
    for table in TABLES:
        assert getattr(loaded, table).equals(getattr(found, table)), table
        assert getattr(loaded, table).schema == getattr(found, table).schema
    assert loaded.assign(second).equals(found.assign(second))


@pytest.mark.slow
def test_several_traces_are_one_set_of_tokens() -> None:
    decisions, group = planted(0)
    parts = [trace_of(decisions[:100]), trace_of(decisions[100:])]
    found = cluster(parts, clusters=4)
    assert found.tokens["trace"].to_list() == [0] * 100 + [1] * 140
    assert found.tokens["token"].to_list() == [*range(100), *range(140)]
    assert adjusted_rand_score(group, found.tokens["cluster"]) >= 0.95


@pytest.mark.slow
def test_the_same_seed_gives_the_same_clusters() -> None:
    trace = trace_of(planted(0, flips=0.3)[0])
    first, again = (cluster(trace, clusters=4, seed=5) for _ in range(2))
    assert all(getattr(first, table).equals(getattr(again, table)) for table in TABLES)


@pytest.mark.slow
def test_many_tokens_are_grouped_by_a_sample() -> None:
    decisions, group = planted(0, tokens=6000)
    done: list[float] = []
    found = cluster(trace_of(decisions), clusters=4, progress=done.append)
    assert adjusted_rand_score(group, found.tokens["cluster"]) >= 0.95
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)


@pytest.mark.slow
def test_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    trace, _, found = recovered()
    buffer = io.BytesIO()
    found.save(buffer)
    buffer.seek(0)
    texts = Clusters.load(buffer).tokens["text"]
    assert texts.equals(trace.tokens["text"])
    assert texts.str.contains("<b>", literal=True).any()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"metric": "jaccard"}, "k-means has no Jaccard distance"),
        ({"metric": "euclidean"}, "decisions take 'hamming'"),
        ({"on": "score", "metric": "hamming"}, "scores take 'euclidean'"),
        ({"method": "hdbscan", "clusters": 3}, "leave clusters=3 out"),
        ({"clusters": 9}, "clusters=9 must be from 2 to 8"),
        ({"clusters": 1}, "clusters=1 must be from 2 to 8"),
    ],
)
def test_what_does_not_go_together_gets_a_sentence(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cluster(trace_of(planted(0)[0]), **asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("traces", "sentence"),
    [
        ([], "0 traces"),
        (make_trace(gated=()), "no gates"),
        (make_trace(tokens=39), "39 tokens are too few"),
        (make_trace(exec_count=1), "same profile"),
        ([make_trace(), make_trace(layers=7)], None),
        ([make_trace(), make_trace(gated=(1, 2))], "4 sites, and not the same ones as the 8"),
    ],
)
def test_traces_that_cannot_be_clustered_get_a_sentence(traces: Any, sentence: str | None) -> None:
    if sentence is None:
        assert cluster(traces, clusters=2).tokens.height == 80
        return
    with pytest.raises(ValueError, match=sentence):
        cluster(traces)


@pytest.mark.slow
def test_another_model_is_refused() -> None:
    trace, _, found = recovered()
    other = Trace(
        run=trace.run.with_columns(weights_sha256=pl.lit("f" * 64)),
        sites=trace.sites,
        tokens=trace.tokens,
        matrices=trace.matrices,
    )
    with pytest.raises(ValueError, match="ffffffffffff and 000000000000"):
        cluster([trace, other])
    with pytest.raises(ValueError, match="Give traces of one model"):
        found.assign(other)


@pytest.mark.slow
def test_missing_scores_are_refused() -> None:
    trace = trace_of(planted(0)[0])
    scores = trace.matrix("score").copy()
    scores[:12, 0] = np.nan
    left = Trace(
        run=trace.run,
        sites=trace.sites,
        tokens=trace.tokens,
        matrices={**trace.matrices, "score": scores},
    )
    with pytest.raises(ValueError, match=r"0.2% of the scores are missing"):
        cluster(left, on="score")
    assert cluster(left, clusters=4).profiles["score"].null_count() == 0


def test_more_clusters_than_profiles_are_refused() -> None:
    two = np.tile([[1], [0]], (40, 24)).astype(np.uint8)
    with pytest.raises(ValueError, match="clusters=3 is more than the 2 profiles"):
        cluster(trace_of(two), clusters=3)
    assert cluster(trace_of(two)).count == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    trace_of(planted(0)[0]).save(tmp_path / "trace.parquet")
    with pytest.raises(ValueError, match="a Parquet file of another kind"):
        Clusters.load(tmp_path / "trace.parquet")
    (tmp_path / "text").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as clusters"):
        Clusters.load(tmp_path / "text")


def test_distances_are_what_they_are_called() -> None:
    from scipy.spatial.distance import cdist

    left, right = (planted(seed)[0][:50].astype(np.float64) for seed in (0, 1))
    left[0], right[0] = 0.0, 0.0
    for metric in ("hamming", "jaccard", "euclidean"):
        wanted = cdist(left > 0, right > 0, metric) if metric == "jaccard" else None
        wanted = cdist(left, right, metric) if wanted is None else wanted
        assert distances(left, right, metric) == pytest.approx(wanted)  # type: ignore[arg-type]


def test_a_silhouette_counts_the_left_out_as_zero() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1], [2.5]])
    apart = distances(points, points, "euclidean")
    whole = silhouette(apart[:4, :4], np.array([0, 0, 1, 1]))
    assert whole == pytest.approx(0.98, abs=0.01)
    assert silhouette(apart, np.array([0, 0, 1, 1, -1])) == pytest.approx(whole * 4 / 5)
    assert silhouette(apart, np.zeros(5, dtype=np.int64)) == 0.0


def test_shuffling_keeps_each_site_and_parts_them() -> None:
    profiles = planted(0, tokens=2000)[0].astype(np.float64)
    for block in (1, 16):
        mixed = shuffled_columns(profiles, block=block, generator=np.random.default_rng(0))
        assert (mixed.sum(axis=0) == profiles.sum(axis=0)).all()
        assert _apart(mixed) < 0.1 < _apart(profiles)


def test_a_continuum_keeps_each_site_and_how_pairs_go_together() -> None:
    generator = np.random.default_rng(0)
    depth = generator.normal(size=(3000, 1))
    rarely = np.linspace(-1, 1, 24)
    profiles = (depth + generator.normal(size=(3000, 24)) > rarely).astype(np.float64)
    drawn = Continuum(profiles, np.random.default_rng(0)).draw()
    assert (drawn.sum(axis=0) == profiles.sum(axis=0)).all()
    assert _apart(drawn) == pytest.approx(_apart(profiles), rel=0.1)


def _apart(profiles: np.ndarray) -> float:
    """How much pairs of sites go together: the mean size of their correlations."""
    pairs = np.corrcoef(profiles.T)[np.triu_indices(profiles.shape[1], 1)]
    return float(np.abs(pairs).mean())


def test_scores_of_any_scale_count_alike() -> None:
    trace = trace_of(planted(0)[0])
    raw = raw_profiles([trace], "score")
    stretched = raw * np.logspace(-3, 3, raw.shape[1]) + 7
    one, other = (scaled(each, scale_of(each, "score")) for each in (raw, stretched))
    assert one == pytest.approx(other, abs=1e-6)
    constant = np.ones((50, 2))
    assert (scaled(constant, scale_of(constant, "score")) == 0).all()


def test_it_is_part_of_the_package() -> None:
    assert skipviz.cluster is cluster
    assert skipviz.Clusters is Clusters


def test_a_continuum_is_as_skewed_as_what_sites_share() -> None:
    """Most tokens need little and a few much: one mode, and yet no normal demand."""
    random = np.random.default_rng(0)
    demand = random.exponential(size=600)
    scores = (demand - 1)[:, None] * random.uniform(0.5, 1.5, 24) + random.normal(size=(600, 24))
    profiles = (scores > random.normal(0.0, 0.7, 24)).astype(np.float64)
    continuum = Continuum(profiles, random)
    drawn = np.mean([stats.skew(continuum.draw().sum(axis=1)) for _ in range(20)])
    own = stats.skew(profiles.sum(axis=1))
    assert own > 0.3
    assert drawn == pytest.approx(own, abs=0.15)
