from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.clusters import cards as cluster_cards
from skipviz.analysis.clusters.cards import cluster_classes, cluster_figures, typical_tokens
from skipviz.analysis.clusters.clustered import Clusters, mean_profiles
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.tokens.classes import token_classes
from skipviz.analysis.tokens.covariates import covariates
from skipviz.readings.clusters import assigned_words, card_words, reading
from skipviz.traces import Trace
from tests.profiles import planted, trace_of, unplanted
from tests.synthetic import make_trace, say


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    decisions = planted(0)[0]
    english = say(trace_of(decisions[:100]), [" the", " hive", " of", ","] * 25)
    return [english, trace_of(decisions[100:], seed=1, sequences=3)]


@pytest.fixture(scope="module")
def found(traces: list[Trace]) -> Clusters:
    return cluster(traces)


@pytest.mark.slow
def test_figures_are_the_means_over_the_tokens(traces: list[Trace], found: Clusters) -> None:
    table = cluster_figures(traces, found.tokens)
    assert table["of"].to_list() == [*(f"cluster {n}" for n in range(4)), "all tokens"]
    labels = found.tokens["cluster"].to_list()
    tokens = [row for trace in traces for row in trace.tokens.iter_rows(named=True)]
    frequency = [f for trace in traces for f in covariates(trace)["log_frequency"].to_list()]
    for row in table.iter_rows(named=True):
        mine = [i for i, of in enumerate(labels) if row["cluster"] in (None, of)]
        assert (row["tokens"], row["share"]) == (len(mine), len(mine) / 240)
        for name in ("layers_used", "nll", "surprisal", "position"):
            known = [tokens[i][name] for i in mine if tokens[i][name] is not None]
            assert row[name] == pytest.approx(np.mean(known)), name
        known = [frequency[i] for i in mine if frequency[i] is not None]
        assert row["log_frequency"] == pytest.approx(np.mean(known))


@pytest.mark.slow
def test_tokens_left_out_have_a_row_of_their_own(traces: list[Trace], found: Clusters) -> None:
    tokens = found.tokens.with_columns(
        cluster=pl.when(pl.col("cluster") != 1).then("cluster"), distance=0.0
    )
    table = cluster_figures(traces, tokens)
    assert table["of"].to_list()[-2:] == ["left out", "all tokens"]
    assert table["cluster"].to_list() == [0, 2, 3, None, None]
    assert table["tokens"][-2] == found.tokens["cluster"].eq(1).sum()
    assert 1 not in cluster_classes(traces, tokens)["cluster"].to_list()
    assert mean_profiles(traces, tokens)["cluster"].unique().to_list() == [0, 2, 3]
    nobody = tokens.with_columns(cluster=pl.lit(None, dtype=pl.Int64))
    assert mean_profiles(traces, nobody).is_empty()
    assert typical_tokens(traces, nobody).is_empty()
    assert cluster_classes(traces, nobody).is_empty()
    assert cluster_figures(traces, nobody)["of"].to_list() == ["left out", "all tokens"]


@pytest.mark.slow
def test_what_is_unknown_is_null(
    traces: list[Trace], found: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(trace: Trace) -> pl.DataFrame:
        raise ImportError

    monkeypatch.setattr(cluster_cards, "covariates", missing)
    assert cluster_figures(traces, found.tokens)["log_frequency"].null_count() == 5
    silent = make_trace(statistics=False)
    tokens = pl.DataFrame({"cluster": [0] * 40})
    assert cluster_figures(silent, tokens)["nll"].to_list() == [None, None]


@pytest.mark.slow
def test_classes_are_counted(traces: list[Trace], found: Clusters) -> None:
    table = cluster_classes(traces, found.tokens)
    kind = pl.concat([token_classes(trace)["kind"] for trace in traces])
    for row in table.filter(feature="kind").iter_rows(named=True):
        mine = found.tokens["cluster"] == row["cluster"]
        tokens = (mine & (kind == row["class"])).sum()
        assert row["tokens"] == tokens
        assert row["share"] == pytest.approx(tokens / mine.sum())
        assert row["share_all"] == pytest.approx((kind == row["class"]).mean())
        assert row["more"] == pytest.approx(row["share"] - row["share_all"])
    per_cluster = table.group_by("cluster").len()["len"]
    assert per_cluster.n_unique() == 1, "a class that a cluster has none of has a row too"


@pytest.mark.slow
def test_a_planted_class_is_what_the_words_name() -> None:
    pieces = [" seven", "7", " tree", "8"] * 60
    decisions = np.ones((240, 24), dtype=np.uint8)
    decisions[1::2, ::2] = 0
    trace = say(trace_of(decisions), pieces)
    found = cluster(trace, clusters=2)
    tokens = found.tokens
    digits = tokens["cluster"][1]
    assert tokens["cluster"][1::2].to_list() == [digits] * 120
    figures, classes = cluster_figures(trace, tokens), cluster_classes(trace, tokens)
    words = card_words(figures, classes, cluster=int(digits))
    assert "120 tokens, 50% of all, use 8.0 layers on average; all tokens use 11.0." in words
    assert "More digits (100%, 50% of all)" in words
    assert "Fewer words (0%, 50% of all)" in words.replace(
        "lower-case words (0%, 50% of all), ", ""
    )
    typical = typical_tokens(trace, tokens)
    assert set(typical.filter(cluster=digits)["text"]) == {"7", "8"}


@pytest.mark.slow
def test_typical_tokens_are_nearest_and_in_their_context(
    traces: list[Trace], found: Clusters
) -> None:
    table = typical_tokens(traces, found.tokens, most=3, seed=1)
    assert table.group_by("cluster").len()["len"].to_list() == [3] * 4
    for row in table.iter_rows(named=True):
        trace = traces[row["trace"]]
        token = trace.tokens.row(row["token"], named=True)
        assert (row["text"], row["position"]) == (token["text"], token["position"])
        mine = found.tokens.filter(cluster=row["cluster"])
        same = mine.filter(trace=row["trace"], token=row["token"])
        assert same["distance"].to_list() == [row["distance"]]
        others = table.filter(cluster=row["cluster"])["text"]
        nearer = mine.filter(pl.col("distance") < row["distance"])["text"]
        assert set(nearer) <= set(others), "no nearer token is left out"
    assert table.equals(typical_tokens(traces, found.tokens, most=3, seed=1))


def test_context_repeats_no_character_and_stays_in_the_text() -> None:
    trace = make_trace(tokens=40, sequences=2)
    tokens = pl.DataFrame({"trace": [0] * 40, "token": range(40), "cluster": 0, "distance": 0.0})
    tokens = tokens.with_columns(
        trace.tokens.select("source", "sequence", "position", "text"),
        cluster=pl.lit(0, dtype=pl.Int64),
    )
    table = typical_tokens(trace, tokens, most=40)
    whole = _texts(trace)
    for row in table.iter_rows(named=True):
        sequence = trace.tokens["sequence"][row["token"]]
        said = row["before"] + row["text"] + row["after"]
        assert said in whole[sequence]


def _texts(trace: Trace) -> dict[int, str]:
    """The characters of each text, from where each token stands."""
    found: dict[int, dict[int, str]] = {}
    for row in trace.tokens.iter_rows(named=True):
        places = found.setdefault(row["sequence"], {})
        places.update(zip(range(row["char_start"], row["char_end"]), row["text"], strict=True))
    return {key: "".join(places[at] for at in sorted(places)) for key, places in found.items()}


@pytest.mark.slow
def test_other_texts_are_refused(traces: list[Trace], found: Clusters) -> None:
    for function in (cluster_figures, cluster_classes, typical_tokens):
        with pytest.raises(ValueError, match="240 tokens and 100 tokens"):
            function(traces[0], found.tokens)
    with pytest.raises(ValueError, match="most=0"):
        typical_tokens(traces, found.tokens, most=0)


@pytest.mark.slow
def test_the_reading_says_what_the_tables_say(found: Clusters) -> None:
    said = reading(found)
    assert "the tokens form 4 separate clusters (silhouette 0." in said
    assert f"adjusted Rand index {found.run['stability'][0]:.2f}" in said
    share = found.tokens["cluster"].eq(0).mean()
    assert f"cluster 0, holds {share:.0%}" in said
    none = cluster(trace_of(unplanted(1)))
    assert "form no clusters" in reading(none)
    assert "All tokens are shown as one" in reading(none)
    assert "3 shown are the number" in reading(cluster(trace_of(unplanted(1)), clusters=3))
    generator = np.random.default_rng(0)
    depth = generator.normal(size=(300, 1))
    smooth = (depth + generator.normal(size=(300, 24)) > 0).astype(np.uint8)
    assert "a continuum rather than separate groups" in reading(cluster(trace_of(smooth)))


@pytest.mark.slow
def test_words_of_assigned_tokens_say_how_far_they_lie(found: Clusters) -> None:
    far = trace_of(np.random.default_rng(0).integers(0, 2, (60, 24)).astype(np.uint8))
    tokens = found.assign(far)
    said = assigned_words(found, tokens)
    assert (
        "60 tokens of this text were assigned to the nearest of 4 clusters made from 240 tokens"
        in said
    )
    assert f"their cluster is {tokens['distance'].mean():.3f};" in said
    assert f"made the clusters it is {found.tokens['distance'].mean():.3f}." in said
