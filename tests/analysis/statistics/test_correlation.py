from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy import stats

from skipviz.analysis.statistics.correlation import (
    CORRELATION_METHODS,
    CorrelationMethod,
    block_correlation,
)
from skipviz.analysis.statistics.multiple_tests import with_q_values

Floats = npt.NDArray[np.float64]
SEEDS = 500


def series(seed: int, length: int, persistence: float = 0.0) -> Floats:
    """An AR(1) series, started from its stationary law."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(length)
    values[0] /= np.sqrt(1 - persistence**2)
    for place in range(1, length):
        values[place] += persistence * values[place - 1]
    return values


@pytest.mark.parametrize("method", CORRELATION_METHODS)
def test_coefficients_are_scipys(method: CorrelationMethod) -> None:
    x, y = series(0, 60), series(1, 60)
    y = y + 0.5 * x
    known = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}
    found = block_correlation(x, y, method=method, permutations=99, seed=0)
    assert found.r == pytest.approx(known[method](x, y).statistic)
    assert np.isnan(found.low)  # of two blocks no interval is made
    assert found.p <= 0.02


def test_an_interval_needs_eight_blocks() -> None:
    x, y = series(2, 256), series(3, 256)
    found = block_correlation(x, y, permutations=99, seed=0)
    assert found.low < found.r < found.high
    assert found.withheld is None
    fewer = block_correlation(x[:224], y[:224], permutations=99, seed=0)
    assert np.isnan([fewer.low, fewer.high]).all()
    assert fewer.withheld == "blocks"


def trending(seed: int, length: int) -> Floats:
    """A line up or down, and noise."""
    generator = np.random.default_rng(seed)
    line = np.linspace(-1.7, 1.7, length) * generator.choice([-1, 1])
    return line + 0.5 * generator.standard_normal(length)


def rare(seed: int, length: int) -> Floats:
    """Decisions of a rate of 0.98."""
    return (np.random.default_rng(seed).random(length) < 0.98).astype(np.float64)


def spikes(shift: int) -> Floats:
    """Five tokens among 256."""
    return np.isin(np.arange(256), shift + np.array([20, 77, 130, 190, 240])) * 1.0


@pytest.mark.parametrize(
    "made", [trending, lambda seed, length: series(seed, length, 0.9), series, rare]
)
def test_two_figures_without_relation_are_seldom_claimed(
    made: Callable[[int, int], Floats],
) -> None:
    found = [
        block_correlation(made(s, 256), made(s + 10_000, 256), permutations=99, seed=s)
        for s in range(150)
    ]
    # 5% are 7 of 150; more than 14 are 1% of the time.
    assert sum(each.p <= 0.05 for each in found) <= 14
    given = [each for each in found if np.isfinite(each.low)]
    assert sum(each.low <= 0 <= each.high for each in given) >= 0.92 * len(given)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("persistence", "rate"), [(0.0, None), (0.9, None), (0.0, 0.9), (0.0, 0.98)]
)
def test_intervals_cover_the_truth_or_are_not_given(persistence: float, rate: float | None) -> None:
    def pair(seed: int, length: int) -> tuple[Floats, Floats]:
        x, other = series(seed, length, persistence), series(seed + 10_000, length, persistence)
        y = 0.5 * x + np.sqrt(0.75) * other
        spread = 1 / np.sqrt(1 - persistence**2)
        return (x if rate is None else (x < spread * stats.norm.ppf(rate)) * -1.0), y

    truth = stats.spearmanr(*pair(0, 100_000)).statistic
    found = [block_correlation(*pair(s, 512), permutations=9, seed=s) for s in range(150)]
    given = [each for each in found if np.isfinite(each.low)]
    inside = sum(each.low <= truth <= each.high for each in given)
    # 93%, less what chance does.
    assert not given or stats.binomtest(inside, len(given), 0.93, "less").pvalue > 0.01
    assert len(given) > (75 if persistence == 0 and rate != 0.98 else -1)


def test_a_relation_is_found_beside_trends() -> None:
    x = trending(0, 256)
    y = 3 * trending(1, 256) + x
    assert block_correlation(x, y, permutations=199, seed=0).p == pytest.approx(1 / 200)
    slow = series(0, 256, 0.9)
    assert block_correlation(slow, slow + series(1, 256, 0.9), permutations=199, seed=0).p < 0.02


def test_why_there_is_no_interval_is_said() -> None:
    x, y = trending(0, 256), trending(1, 256)
    found = block_correlation(x, y, permutations=99, seed=0)
    assert found.withheld == "trends"
    assert abs(found.r) > 0.5 > 0.3 > abs(found.r_detrended)
    few = block_correlation(spikes(0), series(0, 256), permutations=99, seed=0)
    assert few.withheld == "weight"
    assert np.isfinite(few.p)
    both = block_correlation(spikes(0), spikes(1), permutations=99, seed=0)
    assert (both.withheld, np.isnan(both.p)) == ("weight", True)
    heavy = stats.t.rvs(2, size=512, random_state=0)
    for method, withheld in (("pearson", "weight"), ("spearman", None)):
        found = block_correlation(heavy, series(5, 512), method=method, permutations=9, seed=0)
        assert found.withheld == withheld


def test_of_nothing_but_a_trend_there_is_no_p() -> None:
    line = np.arange(256.0)
    found = block_correlation(line, line**2, permutations=99, seed=0)
    assert found.r == pytest.approx(1)
    assert np.isnan([found.r_detrended, found.p, found.low]).all()
    assert found.withheld == "trends"


def test_p_of_noise_is_scipys() -> None:
    x, y = series(0, 400), series(1, 400)
    found = block_correlation(x, y, method="pearson", permutations=4999, seed=0)
    assert found.p == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.15)
    found = block_correlation(x, y + 0.2 * x, method="pearson", permutations=4999, seed=0)
    assert found.p < 0.01


@pytest.mark.long
@pytest.mark.slow
def test_p_values_are_uniform_where_nothing_goes_together() -> None:
    found = [
        block_correlation(
            series(s, 200), series(s + 10_000, 200), block=1, permutations=99, seed=s
        ).p
        for s in range(SEEDS)
    ]
    jitter = np.random.default_rng(0).uniform(0, 0.01, SEEDS)  # they are multiples of 1/100
    assert stats.kstest(np.array(found) - jitter, "uniform").pvalue > 0.01


@pytest.mark.long
@pytest.mark.slow
def test_the_false_discovery_rate_is_held() -> None:
    false, found = [], []
    for seed in range(40):
        x = series(seed, 160)
        p = []
        for other in range(20):
            y = series(1000 + 100 * seed + other, 160)
            if other < 5:  # these do go together
                y = y + 0.6 * x
            p.append(block_correlation(x, y, block=1, permutations=199, seed=other).p)
        q = with_q_values(pl.DataFrame({"p": p}))["q"].to_numpy()
        claims = q <= 0.1
        false.append(claims[5:].sum() / max(1, claims.sum()))
        found.append(claims[:5].mean())
    assert np.mean(false) <= 0.1
    assert np.mean(found) > 0.9


def test_what_a_third_figure_explains_is_taken_out() -> None:
    third = series(0, 400)
    x, y = third + 0.5 * series(1, 400), third + 0.5 * series(2, 400)
    assert block_correlation(x, y, permutations=99, seed=0).r > 0.6
    for method in CORRELATION_METHODS:
        rest = block_correlation(
            x, y, method=method, covariates=third[:, None], permutations=99, seed=0
        )
        assert abs(rest.r) < 0.15
        assert rest.p > 0.01


def test_the_partial_coefficient_is_the_textbooks() -> None:
    x, y, z = series(0, 90), series(1, 90), series(2, 90)
    x, y = x + z, y - z + x
    xy, xz, yz = (np.corrcoef(*pair)[0, 1] for pair in ((x, y), (x, z), (y, z)))
    wanted = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = block_correlation(x, y, method="pearson", covariates=z[:, None], permutations=9, seed=0)
    assert found.r == pytest.approx(wanted)


def test_a_figure_that_never_changes_has_no_correlation() -> None:
    found = block_correlation(np.ones(20), series(0, 20), permutations=9, seed=0)
    assert np.isnan(found.r)
    assert np.isnan(found.p)
    explained = block_correlation(
        series(0, 20), series(1, 20), covariates=series(0, 20)[:, None], permutations=9, seed=0
    )
    assert np.isnan(explained.r)


def test_corrected_leaves_missing_ones_out() -> None:
    table = with_q_values(pl.DataFrame({"p": [0.01, float("nan"), 0.04]}))
    assert table["q"].to_list()[::2] == pytest.approx([0.02, 0.04])
    assert np.isnan(table["q"][1])


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.ones(3), {}, "3 and 4 figures"),
        (np.array([1, 2, 3, np.nan]), {}, "missing or infinite"),
        (np.arange(4.0), {"block": 0}, "block=0"),
    ],
)
def test_bad_figures_are_refused(x: Floats, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        block_correlation(x.astype(np.float64), np.arange(4.0), seed=0, **options)  # type: ignore[arg-type]


def texts_apart(seed: int, sizes: list[int]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Two figures that have nothing to do with each other, each with a level of the text's own."""
    generator = np.random.default_rng(seed)
    documents = np.repeat(np.arange(len(sizes)), sizes)
    x, y = (
        generator.standard_normal(len(documents)) + generator.standard_normal(len(sizes))[documents]
        for _ in range(2)
    )
    return x, y, documents


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[100] * 5, [10] * 40])
def test_texts_that_differ_as_wholes_do_not_go_together(sizes: list[int]) -> None:
    found = []
    for seed in range(60):
        x, y, documents = texts_apart(seed, sizes)
        found.append(block_correlation(x, y, documents=documents, permutations=99, seed=seed))
    assert np.mean([each.p <= 0.05 for each in found]) <= 0.12
    given = [each for each in found if each.withheld is None]
    assert len(given) > 20
    assert np.mean([each.low <= 0 <= each.high for each in given]) >= 0.88


def test_what_holds_within_texts_is_found_though_texts_differ_the_other_way() -> None:
    x, y, documents = texts_apart(0, [80] * 6)
    x, y = x + 3 * documents, y - 3 * documents + 0.6 * x
    found = block_correlation(x, y, documents=documents, method="pearson", permutations=199, seed=0)
    within = [each - np.repeat(each.reshape(6, 80).mean(axis=1), 80) for each in (x, y)]
    assert found.r == pytest.approx(np.corrcoef(*within)[0, 1])
    assert found.p == pytest.approx(1 / 200)
    assert found.low > 0
    # What is the same throughout each text says nothing within them.
    assert np.isnan(
        block_correlation(x, documents * 0.1, documents=documents, permutations=9, seed=0).r
    )
