from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy import stats

import skipviz
from skipviz.analysis.gates.score_correlation import correlate
from skipviz.analysis.statistics.correlation import CORRELATION_METHODS
from skipviz.analysis.statistics.resampling import Resampling
from skipviz.analysis.statistics.trends import waves
from skipviz.analysis.tokens.covariates import covariates, design_matrix
from tests.synthetic import make_trace, say

Floats = npt.NDArray[np.float64]
SEEDS = 500
NULL: dict[str, Any] = {"methods": ["spearman"], "permutations": 99}


def as_cells(values: Floats) -> pl.DataFrame:
    """Cells of all tokens but the last, which an audit leaves out as well."""
    token, site = np.indices(values[:-1].shape)
    return pl.DataFrame(
        {"token": token.ravel(), "site": site.ravel(), "utility": values[:-1].ravel()}
    )


def planted(seed: int, trace: skipviz.Trace, gains: list[float]) -> Floats:
    """Utilities that go with the scores of each site by its gain, and noise."""
    noise = np.random.default_rng(seed).standard_normal(trace.margin.shape)
    return trace.margin / trace.margin.std(axis=0) * np.array(gains) + noise


def null_table(seed: int) -> pl.DataFrame:
    """Utilities that go with the scores, but for that each site's scores were shuffled."""
    trace = make_trace(seed=seed, tokens=40, gated=(1, 2))
    values = planted(seed, trace, [1.0, 0.5, 2.0, 1.0])
    shuffled = np.random.default_rng(seed + 10_000).permuted(values, axis=0)
    return correlate(trace, as_cells(shuffled), "utility", seed=seed, **NULL)


def test_each_coefficient_is_the_naive_one() -> None:
    trace = make_trace(tokens=60, gated=(1, 2))
    values = planted(0, trace, [1.0, 0.0, -1.0, 0.3])
    table = correlate(
        trace, as_cells(values), "utility", methods=CORRELATION_METHODS, permutations=29, seed=0
    )
    used = slice(1, -1)  # the first token has no surprisal, the last no utility
    scores, values = trace.margin[used].astype(np.float64), values[used]
    assert table["tokens"].unique().to_list() == [58]
    known = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}
    for method in CORRELATION_METHODS:
        naive = [known[method](scores[:, s], values[:, s]).statistic for s in range(4)]
        found = table.filter(method=method, controlled=False)
        assert found.filter(scope="site")["r"].to_list() == pytest.approx(naive)
        layers = [np.mean(naive[:2]), np.mean(naive[2:])]
        assert found.filter(scope="layer")["r"].to_list() == pytest.approx(layers)
        assert found.filter(scope="all")["r"].item() == pytest.approx(np.mean(naive))
    ranked = [stats.rankdata(each, axis=0).ravel() for each in (scores, values)]
    over_all = table.filter(scope="all", method="spearman", controlled=False)["r"].item()
    assert over_all == pytest.approx(np.corrcoef(*ranked)[0, 1])


def test_controlled_coefficients_are_those_of_the_precision_matrix() -> None:
    pieces = ["The", " fox", " saw", ",", " all", " of", " them", "."]
    trace = say(make_trace(tokens=60, gated=(1, 2)), [*pieces * 7, *pieces[:4]])
    values = planted(0, trace, [1.0, 0.0, -1.0, 0.3])
    table = correlate(
        trace, as_cells(values), "utility", methods=CORRELATION_METHODS, permutations=9, seed=0
    )
    used = slice(1, -1)
    known = design_matrix(covariates(trace))[used]
    for method, of in (("pearson", np.asarray), ("spearman", stats.rankdata)):
        naive = []
        for site in range(4):
            columns = [trace.margin[used, site], values[used, site], *known.T]
            precision = np.linalg.inv(np.corrcoef([of(each) for each in columns]))
            naive.append(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
        found = table.filter(scope="site", method=method, controlled=True)
        assert found["r"].to_list() == pytest.approx(naive, abs=1e-6)


def test_p_over_all_turns_waves_of_all_sites_at_once_and_q_is_over_the_whole_table() -> None:
    trace = make_trace(tokens=62, gated=(1, 2))
    values = planted(3, trace, [0.15, 0.0, 0.15, 0.1])
    table = correlate(
        trace, as_cells(values), "utility", methods=CORRELATION_METHODS, permutations=199, seed=5
    )
    scores, values = trace.margin[1:-1].astype(np.float64), values[1:-1]

    texts = [np.arange(60)]
    left, right = waves(scores, texts), waves(values, texts)

    def mean(signs: Floats) -> float:
        pairs = zip((signs[:, None] * left).T, right.T, strict=True)
        return float(np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]))

    signs = Resampling.of(60, block=32, permutations=199, seed=5).signs
    own = mean(np.ones(len(left)))
    extreme = sum(abs(mean(each)) >= abs(own) for each in signs)
    found = table.filter(scope="all", method="pearson", controlled=False).row(0, named=True)
    assert found["r_detrended"] == pytest.approx(own)
    assert found["p"] == pytest.approx((extreme + 1) / 200)
    q = stats.false_discovery_control(table["p"].to_numpy(), method="bh")
    np.testing.assert_allclose(table["q"].to_numpy(), q)


@pytest.mark.slow
def test_planted_sites_are_found_and_others_are_not() -> None:
    trace = make_trace(tokens=300, gated=(1, 2, 3))
    values = planted(0, trace, [1.0, 0.0, 0.0, -1.0, 0.0, 0.0])
    table = correlate(
        trace, as_cells(values), "utility", methods=CORRELATION_METHODS, permutations=199, seed=0
    )
    for method in CORRELATION_METHODS:
        sites = table.filter(scope="site", method=method, controlled=True)
        assert (sites["q"] < 0.05).to_list() == [True, False, False, True, False, False]
        assert sites["r"][0] > 0.4 > -0.4 > sites["r"][3]
        assert sites["low"][0] > 0 > sites["high"][3]


def test_what_scores_owe_to_position_is_taken_out() -> None:
    trace = make_trace(tokens=300, gated=(1,))
    position = np.arange(300)[:, None] / 100
    noise = np.random.default_rng(0).standard_normal(trace.margin.shape)
    scores = (trace.matrix("threshold") + position + 0.3 * noise).astype(np.float32)
    matrices = {**trace.matrices, "score": scores}
    trace = skipviz.Trace(run=trace.run, sites=trace.sites, tokens=trace.tokens, matrices=matrices)
    values = position + 0.3 * np.random.default_rng(1).standard_normal(trace.margin.shape)
    table = correlate(
        trace, as_cells(values), "utility", methods=CORRELATION_METHODS, permutations=99, seed=0
    )
    for method in CORRELATION_METHODS:
        plain, controlled = (
            table.filter(scope="all", method=method, controlled=each).row(0, named=True)
            for each in (False, True)
        )
        assert plain["r"] > 0.6
        assert abs(controlled["r"]) < 0.1
        assert controlled["p"] > 0.05


@pytest.mark.long
@pytest.mark.slow
def test_under_the_null_p_is_uniform() -> None:
    p: dict[tuple[str, bool], list[float]] = {}
    for seed in range(SEEDS):
        for scope, controlled, value in null_table(seed).select("scope", "controlled", "p").rows():
            p.setdefault((scope, controlled), []).append(value)
    for (scope, controlled), values in p.items():
        # One of each seed: several of a text are not independent of each other.
        alone = np.array(values)[:: len(values) // SEEDS]
        jitter = np.random.default_rng(0).uniform(0, 0.01, len(alone))  # multiples of 1/100
        found = stats.kstest(alone - jitter, "uniform").pvalue
        assert found > 0.01, (scope, controlled, found)


def test_a_site_whose_scores_never_change_has_no_coefficient_and_leaves_the_others_theirs() -> None:
    trace = make_trace(tokens=50, gated=(1,))
    values = planted(0, trace, [1.0, 1.0])
    values[:, 1] = 7.0
    table = correlate(
        trace, as_cells(values), "utility", methods=["spearman"], permutations=99, seed=0
    ).filter(~pl.col("controlled"))
    assert table["r"].null_count() == table["p"].null_count() == 1
    site = table.filter(label="L1.attn").row(0, named=True)
    assert table.filter(scope="all")["r"].item() == pytest.approx(site["r"])
    assert table.filter(label="L1.mlp")["q"].item() is None


def test_progress_ends_at_one_and_may_stop_it() -> None:
    trace = make_trace(tokens=20, gated=(1,))
    shares: list[float] = []
    cells = as_cells(planted(0, trace, [1.0, 1.0]))
    correlate(trace, cells, "utility", permutations=9, seed=0, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("tokens", "value", "options", "words"),
    [
        (20, "worth", {}, "no column 'worth'"),
        (4, "utility", {}, "2 of 4 tokens"),
        (20, "utility", {"block": 0}, "block=0"),
        (20, "utility", {"permutations": 0}, "permutations=0"),
    ],
)
def test_what_cannot_be_correlated_is_refused(
    tokens: int, value: str, options: dict[str, Any], words: str
) -> None:
    trace = make_trace(tokens=tokens, gated=(1,))
    cells = as_cells(planted(0, trace, [1.0, 1.0]))
    with pytest.raises(ValueError, match=words):
        correlate(trace, cells, value, seed=0, **options)


def test_a_trace_without_gates_has_no_scores_to_correlate() -> None:
    trace = make_trace(tokens=20, gated=())
    cells = pl.DataFrame(schema={"token": pl.Int64, "site": pl.Int64, "utility": pl.Float64})
    with pytest.raises(ValueError, match="0 sites"):
        correlate(trace, cells, "utility", seed=0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda cells: cells.drop("token"), "need a column 'token' of whole numbers"),
        (lambda cells: cells.cast({"site": pl.Float64}), "need a column 'site' of whole numbers"),
        (lambda cells: cells.with_columns(token=-pl.col("token")), "tokens of the cells must be"),
        (lambda cells: cells.with_columns(site=pl.col("site") + 99), "sites of the cells must be"),
        (lambda cells: pl.concat([cells, cells]), "the same token and site twice"),
        (lambda cells: cells.cast({"utility": pl.String}), "'utility' is of type String"),
    ],
)
def test_cells_that_are_not_the_traces_are_refused(changed: Any, said: str) -> None:
    trace = make_trace(tokens=8)
    cells = changed(as_cells(trace.matrix("score")))
    with pytest.raises(skipviz.InputError, match=said):
        correlate(trace, cells, "utility")


def test_some_method_must_be_asked_for() -> None:
    trace = make_trace(tokens=8)
    with pytest.raises(skipviz.InputError, match="There is no method; give some of pearson"):
        correlate(trace, as_cells(trace.matrix("score")), "utility", methods=[])
