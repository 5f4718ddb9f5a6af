from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy import stats
from scipy.signal import lfilter

from skipviz.analysis.robustness.drift import LAYERS_USED, drift
from skipviz.analysis.robustness.two_corpora import MIN_BLOCKS_PER_SIDE
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.errors import TraceError
from skipviz.traces import Trace
from tests.synthetic import make_trace

SITES = 8


def alike(length: int, width: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Series whose neighbours are alike, an AR(1) of 0.8 with variance 1."""
    noise = generator.standard_normal((length, width))
    noise[0] /= 0.6
    series: npt.NDArray[np.float64] = 0.6 * lfilter([1], [1, -0.8], noise, axis=0)
    return series


def scored(scores: npt.NDArray[np.float64], *, sequences: int = 1, **about: object) -> Trace:
    """Return a trace with these scores, which execute above 0."""
    made = make_trace(
        tokens=len(scores), sequences=sequences, exec_count=scores > 0, **about  # type: ignore[arg-type]
    )  # fmt: skip
    matrices = dict(made.matrices) | {
        "score": scores.astype(np.float32),
        "threshold": np.zeros(scores.shape, dtype=np.float32),
    }
    return Trace(run=made.run, sites=made.sites, tokens=made.tokens, matrices=matrices)


def corpus(seed: int, tokens: int, *, sequences: int = 1, level: float = 0.0) -> Trace:
    """A corpus in which each document has a level of its own, of deviation ``level``."""
    generator = np.random.default_rng(seed)
    scores = alike(tokens, SITES, generator)
    own = level * generator.standard_normal((sequences, SITES))
    return scored(scores + np.repeat(own, tokens // sequences, axis=0), sequences=sequences)


def shifted(trace: Trace, site: int, by: float) -> Trace:
    scores = trace.matrix("score").astype(np.float64)
    scores[:, site] += by
    return scored(scores, sequences=trace.tokens["sequence"].n_unique())


def test_distances_and_effects_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    # Whole numbers, so that every value is a place and there are ties.
    first, second = (generator.integers(-20, 20 + more, (256, SITES)) for more in (0, 9))
    table = drift(scored(first), scored(second), permutations=9, seed=0)
    assert table["figure"].to_list() == [LAYERS_USED, *make_trace().sites["label"]]
    for site in range(SITES):
        row = table.row(site + 1, named=True)
        pair = (first[:, site], second[:, site])
        assert row["ks"] == pytest.approx(stats.ks_2samp(*pair).statistic)
        wins = stats.mannwhitneyu(pair[1], pair[0]).statistic
        assert row["delta"] == pytest.approx(2 * wins / 256**2 - 1)
        assert row["mean_before"] == pytest.approx(pair[0].mean())
        assert row["rate_after"] == pytest.approx((pair[1] > 0).mean())


def naive_index(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    """The index as the book has it, half a token added to each bin."""
    ordered = sorted(before)
    tenths = {ordered[-(-len(ordered) * tenth // 10) - 1] for tenth in range(1, 11)}
    values = set(ordered)
    ends = sorted(values if len(values) <= 10 else tenths)[:-1]

    def shares(figures: npt.NDArray[np.float64]) -> list[float]:
        counts = [0.5] * (len(ends) + 1)
        for value in figures:
            counts[sum(value > end for end in ends)] += 1
        return [count / sum(counts) for count in counts]

    pairs = zip(shares(before), shares(after), strict=True)
    return float(sum((new - old) * np.log(new / old) for old, new in pairs))


def test_the_stability_index_is_that_of_its_definition() -> None:
    first, second = corpus(0, 300), shifted(corpus(1, 400), 2, 0.7)
    table = drift(first, second, permutations=9, seed=0)
    for site in range(SITES):
        wanted = naive_index(first.matrix("score")[:, site], second.matrix("score")[:, site])
        assert table["psi"][site + 1] == pytest.approx(wanted, abs=1e-6)
    used = [each.tokens["layers_used"].to_numpy() for each in (first, second)]
    assert table["psi"][0] == pytest.approx(naive_index(*used), abs=1e-6)


def test_chance_is_what_two_parts_of_one_corpus_show() -> None:
    """The mean over permutations is near the index of corpora that do not differ."""
    tables = [drift(corpus(i, 640), corpus(i + 50, 640), permutations=99, seed=0) for i in range(8)]
    found = pl.concat(tables).filter(pl.col("figure") != LAYERS_USED)
    assert found["psi_chance"].mean() == pytest.approx(found["psi"].mean(), rel=0.3)
    assert found["psi"].mean() > 0.03  # far above 18 / 640, that of independent tokens


@pytest.mark.slow
@pytest.mark.parametrize(("sequences", "level"), [(1, 0.0), (8, 0.5)])
def test_halves_of_one_corpus_have_not_drifted(sequences: int, level: float) -> None:
    p, naive, alarms = [], [], 0
    for seed in range(60):
        first = corpus(2 * seed, 512, sequences=sequences, level=level)
        second = corpus(2 * seed + 1, 512, sequences=sequences, level=level)
        table = drift(first, second, permutations=199, seed=seed)
        p.append(table["p"][1])
        both = (first.matrix("score")[:, 0], second.matrix("score")[:, 0])
        naive.append(stats.ks_2samp(*both).pvalue)
        alarms += (table["level"] != "stable").any()
    limit = stats.binom.ppf(0.999, 60, FALSE_DISCOVERY_RATE)
    assert (np.array(p) < FALSE_DISCOVERY_RATE).sum() <= limit
    assert alarms <= limit
    assert (
        np.array(naive) < FALSE_DISCOVERY_RATE
    ).sum() > limit  # what a test that takes tokens alone says


@pytest.mark.parametrize("sequences", [1, 8])
def test_planted_drift_is_found_at_its_site(sequences: int) -> None:
    first, second = (corpus(seed, 2048, sequences=sequences) for seed in (0, 1))
    table = drift(first, shifted(second, 3, 1.0), permutations=999, seed=0)
    assert table.filter(level="drifted")["site"].to_list() == [3]
    row = table.filter(site=3).row(0, named=True)
    assert row["delta"] > 0.4
    assert row["q"] < FALSE_DISCOVERY_RATE
    assert row["psi"] > 0.25 > row["psi_chance"]
    assert set(table["exchanged"]) == {"documents" if sequences == 8 else "blocks"}


def test_several_traces_are_one_corpus() -> None:
    whole = corpus(0, 400, sequences=4)
    parts = [scored(whole.matrix("score")[start : start + 100]) for start in range(0, 400, 100)]
    after = corpus(1, 400, sequences=4)
    assert drift(parts, after, permutations=19, seed=0).equals(
        drift(whole, after, permutations=19, seed=0)
    )


def test_the_share_done_is_told_and_whoever_is_told_can_stop_it() -> None:
    first, second = corpus(0, 256), corpus(1, 256)
    shares: list[float] = []
    table = drift(first, second, permutations=1100, seed=0, progress=shares.append)
    assert shares == pytest.approx([x / 2200 for x in (500, 1000, 1100, 1600, 2100, 2200)])
    assert table.equals(drift(first, second, permutations=1100, seed=0))

    def stop(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        drift(first, second, permutations=1100, seed=0, progress=stop)


def test_a_gate_that_was_never_asked_has_no_figures() -> None:
    first = corpus(0, 256)
    scores = corpus(1, 256).matrix("score").astype(np.float64)
    scores[:, 5] = np.nan
    row = drift(first, scored(scores), permutations=9, seed=0).row(6, named=True)
    assert row["tokens_after"] == 0
    assert [row[name] for name in ("ks", "p", "q", "psi", "psi_chance", "delta")] == [None] * 6
    assert row["level"] == "stable"


def test_what_cannot_be_compared_gets_a_sentence() -> None:
    first = corpus(0, 256)
    with pytest.raises(TraceError, match="differ in budget"):
        drift(first, scored(first.matrix("score"), budget=0.5), seed=0)
    with pytest.raises(TraceError, match="different sites"):
        drift(first, make_trace(tokens=256, gated=(1, 2)), seed=0)
    with pytest.raises(ValueError, match="at least 128 tokens"):
        drift(first, corpus(1, 64), seed=0)
    with pytest.raises(ValueError, match="no traces"):
        drift([], first, seed=0)
    with pytest.raises(ValueError, match="permutations=0"):
        drift(first, first, permutations=0, seed=0)
    assert set(drift(first, first, permutations=1, seed=0)["p"]) == {1.0}


def at_thresholds(trace: Trace, thresholds: npt.ArrayLike) -> Trace:
    matrices = dict(trace.matrices) | {
        "threshold": np.broadcast_to(thresholds, trace.matrix("score").shape).astype(np.float32)
    }
    return Trace(run=trace.run, sites=trace.sites, tokens=trace.tokens, matrices=matrices)


def test_other_thresholds_are_another_policy() -> None:
    first, second = corpus(0, 128), corpus(1, 128)
    limits = np.full(SITES, 0.1)
    for other in (0.5, np.inf):
        limits[2] = other
        with pytest.raises(TraceError, match=rf"threshold of L2\.attn, 0\.1 and {other}; trace"):
            drift(at_thresholds(first, 0.1), at_thresholds(second, limits), seed=0)


@pytest.mark.parametrize(
    "thresholds",
    [
        np.full(SITES, np.nan),
        np.linspace(0, 1, 128)[:, None],
        np.where(np.arange(SITES) == 3, np.nan, np.arange(SITES)),
    ],
)
def test_thresholds_that_are_none_or_change_by_token_are_not_compared(
    thresholds: npt.NDArray[np.float64],
) -> None:
    first = at_thresholds(corpus(0, 128), np.arange(SITES))
    table = drift(first, at_thresholds(corpus(1, 128), thresholds), permutations=9, seed=0)
    assert table.height == SITES + 1


def test_whole_text_decisions_have_no_p_while_blocks_change_places() -> None:
    def of_texts(trace: Trace) -> Trace:
        sites = trace.sites.with_columns(scope=pl.lit("sequence"))
        return Trace(run=trace.run, sites=sites, tokens=trace.tokens, matrices=trace.matrices)

    table = drift(of_texts(corpus(0, 256)), of_texts(corpus(1, 256)), permutations=9, seed=0)
    assert table["p"].null_count() == SITES
    assert MIN_BLOCKS_PER_SIDE * 32 == 128
