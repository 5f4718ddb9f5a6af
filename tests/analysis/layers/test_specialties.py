from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy.signal import lfilter
from scipy.stats.contingency import odds_ratio
from sklearn.metrics import mutual_info_score

from skipviz.analysis.layers import specialties as module
from skipviz.analysis.layers.specialties import significant_specialties, specialties
from skipviz.analysis.statistics import blocks
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.readings.layers import specialty_sentences
from skipviz.traces import Trace
from tests.synthetic import make_trace

SITES = 20
SEEDS = [25, pytest.param(100, marks=pytest.mark.long)]
PLANTED = [("some", 16), ("common", 3), ("common", 11)]
"""Classes and the sites that run for them more often than for others."""


def alike(length: int, width: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Series whose neighbours are alike, an AR(1) of 0.8 with variance 1."""
    noise = generator.standard_normal((length, width))
    noise[0] /= 0.6
    series: npt.NDArray[np.float64] = 0.6 * lfilter([1], [1, -0.8], noise, axis=0)
    return series


def traced(executed: npt.NDArray[np.bool_]) -> Trace:
    gated = tuple(range(1, executed.shape[1] // 2 + 1))
    return make_trace(tokens=len(executed), layers=len(gated) + 2, gated=gated, exec_count=executed)


def drawn(seed: int, *, tokens: int = 1200, effect: float = 0.0) -> tuple[Trace, pl.DataFrame]:
    """Three classes and twenty sites, all of them alike in runs; those planted shifted."""
    generator = np.random.default_rng(seed)
    inside = alike(tokens, 3, generator) > [0.0, 1.0, 1.8]
    names = ["common", "some", "rare"]
    drive = alike(tokens, SITES, generator)
    for name, site in PLANTED:
        drive[:, site] += effect * inside[:, names.index(name)]
    classes = pl.DataFrame(
        {
            f"is {name}": pl.Series(np.where(inside[:, i], name, None).tolist(), dtype=pl.String)
            for i, name in enumerate(names)
        }
    )
    return traced(drive > np.linspace(-1.5, 1.5, SITES)), classes


def test_figures_are_those_of_scipy_and_scikit_learn() -> None:
    trace, classes = drawn(0, effect=1.0)
    row = specialties(trace, classes, seed=0).filter(pl.col("class") == "some", site=7)
    inside = (classes["is some"] == "some").fill_null(False).to_numpy()
    ran = trace.matrix("exec_count")[:, 7] > 0
    table = np.array([[(inside == i) & (ran == j) for j in (1, 0)] for i in (1, 0)]).sum(axis=-1)
    known = odds_ratio(table, kind="sample")
    assert row["tokens"].item() == inside.sum()
    assert row["rate"].item() == pytest.approx(ran[inside].mean())
    assert row["rate_outside"].item() == pytest.approx(ran[~inside].mean())
    assert row["log_odds"].item() == pytest.approx(np.log(known.statistic), abs=0.02)
    low, high = known.confidence_interval(0.95)
    assert row["high"].item() - row["low"].item() >= np.log(high / low) * 0.98
    assert row["mutual_information"].item() == pytest.approx(mutual_info_score(inside, ran))


def test_intervals_are_those_of_independent_tokens_where_tokens_are() -> None:
    generator = np.random.default_rng(0)
    inside = generator.random(6000) < 0.3
    ran = generator.random((6000, 2)) < np.where(inside, 0.7, 0.4)[:, None]
    classes = pl.DataFrame({"f": np.where(inside, "in", "out").tolist()})
    table = specialties(traced(ran), classes, seed=0).filter(pl.col("class") == "in")
    for site, row in enumerate(table.iter_rows(named=True)):
        counts = [[(inside & ran[:, site]).sum(), (inside & ~ran[:, site]).sum()]]
        counts += [[(~inside & ran[:, site]).sum(), (~inside & ~ran[:, site]).sum()]]
        known = odds_ratio(np.array(counts), kind="sample").confidence_interval(0.95)
        assert row["low"] == pytest.approx(np.log(known.low), abs=0.06)
        assert row["high"] == pytest.approx(np.log(known.high), abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
def test_planted_specialties_are_found_and_null_ones_are_not(seeds: int) -> None:
    false, hits = [], []
    for seed in range(seeds):
        trace, classes = drawn(seed, effect=1.2)
        table = specialties(trace, classes, permutations=199, seed=seed)
        claimed = set(significant_specialties(table).select("class", "site").rows())
        false.append(len(claimed - set(PLANTED)) / max(1, len(claimed)))
        hits.append(len(claimed & set(PLANTED)) / len(PLANTED))
    error = np.std(false) / np.sqrt(seeds)
    assert np.mean(false) <= FALSE_DISCOVERY_RATE + 2 * error
    assert np.mean(false) > 0  # a rule that claims nothing is none
    assert np.mean(hits) > 0.95


def claims(seeds: int) -> float:
    any_claimed = [
        significant_specialties(specialties(*drawn(seed), permutations=199, seed=seed)).height > 0
        for seed in range(seeds)
    ]
    return float(np.mean(any_claimed))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
def test_nothing_is_claimed_where_nothing_is(seeds: int) -> None:
    assert claims(seeds) <= 0.1


@pytest.mark.slow
def test_tokens_taken_for_independent_would_find_specialties_in_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK_TOKENS", 1)
    assert claims(10) > 0.5


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = []
    for seed in range(30):
        table = specialties(*drawn(seed), permutations=19, seed=seed)
        held.append(((table["low"] <= 0) & (table["high"] >= 0)).mean())
    assert 0.92 <= np.mean(held) <= 0.98


def test_the_sign_says_whether_the_class_runs_more() -> None:
    trace, classes = drawn(0, effect=-1.5)
    table = significant_specialties(specialties(trace, classes, seed=0))
    assert (table.filter(site=3)["log_odds"] < 0).all()
    assert (table.filter(site=3)["rate"] < table.filter(site=3)["rate_outside"]).all()


def test_sites_that_do_not_choose_have_no_p() -> None:
    executed = np.random.default_rng(0).random((200, 4)) < 0.5
    executed[:, 0], executed[:, 1] = True, False
    trace = traced(executed)
    sites = trace.sites.with_columns(
        scope=pl.when(site=2).then(pl.lit("sequence")).otherwise("scope")
    )
    whole = Trace(run=trace.run, sites=sites, tokens=trace.tokens, matrices=trace.matrices)
    classes = pl.DataFrame({"f": ["a", "b"] * 100})
    table = specialties(whole, classes, seed=0)
    assert table.filter(pl.col("site") < 3)["p"].null_count() == 6
    assert table.filter(pl.col("site") < 3)["q"].null_count() == 6
    assert table.filter(pl.col("site") < 2)["log_odds"].null_count() == 4
    assert table.filter(site=2)["log_odds"].null_count() == 0
    assert table.filter(site=3)["p"].null_count() == 0


def test_small_classes_are_left_out() -> None:
    trace = traced(np.random.default_rng(0).random((100, 4)) < 0.5)
    classes = pl.DataFrame({"f": ["few"] * 9 + ["many"] * 91, "g": ["half", None] * 50})
    assert specialties(trace, classes, seed=0)["class"].unique().to_list() == ["half"]
    none = specialties(trace, classes.select("f"), seed=0)
    assert none.is_empty()
    assert specialty_sentences(none) == []


def test_sentences_say_what_was_planted() -> None:
    draws = np.random.default_rng(0).random((600, 5))
    names = np.array(["content words", "digits", "function words"])
    which = np.searchsorted([0.5, 0.7], draws[:, 4])
    executed = draws[:, :4] < 0.5
    executed[:, 3] = draws[:, 3] < np.array([0.5, 0.9, 0.3])[which]
    classes = pl.DataFrame({"kind": names[which].tolist()})
    table = specialties(traced(executed), classes, seed=0)
    content, digits, function = table.filter(site=3).sort("class")["rate"].to_list()
    said = f"Layer 2's MLP runs for {digits:.0%} of digits, {function:.0%} of function words."
    assert specialty_sentences(table, most=1) == [said]
    alone = classes.with_columns(pl.when(kind="digits").then("kind"))
    others = (content * (which == 0).sum() + function * (which == 2).sum()) / (which != 1).sum()
    assert specialty_sentences(specialties(traced(executed), alone, seed=0)) == [
        f"Layer 2's MLP runs for {digits:.0%} of digits, {others:.0%} of all other tokens."
    ]


def test_classes_of_other_tokens_are_refused() -> None:
    trace = traced(np.ones((20, 2), dtype=bool))
    with pytest.raises(ValueError, match="3 tokens and 20 tokens in the trace"):
        specialties(trace, pl.DataFrame({"f": ["a"] * 3}), seed=0)
    with pytest.raises(ValueError, match="None of the columns n holds strings"):
        specialties(trace, pl.DataFrame({"n": [1] * 20}), seed=0)


def test_the_same_seed_gives_the_same_table() -> None:
    trace, classes = drawn(0)
    assert specialties(trace, classes, seed=1).equals(specialties(trace, classes, seed=1))


@pytest.mark.slow
def test_five_thousand_tokens_and_fifty_two_sites_take_seconds() -> None:
    generator = np.random.default_rng(0)
    trace = traced(generator.random((5000, 52)) < 0.7)
    classes = pl.DataFrame(
        {f"f{i}": generator.choice([*"abcdefghij"], 5000).tolist() for i in range(4)}
    )
    began = time.perf_counter()
    assert specialties(trace, classes, seed=0).height == 40 * 52
    assert time.perf_counter() - began < 8


def test_texts_that_differ_as_wholes_have_no_specialties_for_that() -> None:
    shares: list[float] = []
    claimed = []
    for seed in range(15):
        generator = np.random.default_rng(seed)
        text = np.repeat(np.arange(6), 120)
        ran = generator.random((720, 8)) < generator.uniform(0.1, 0.9, (6, 8))[text]
        inside = generator.random(720) < generator.uniform(0.1, 0.9, 6)[text]
        classes = pl.DataFrame({"f": np.where(inside, "in", "out").tolist()})
        trace = make_trace(tokens=720, sequences=6, exec_count=ran)
        table = specialties(
            trace, classes, permutations=99, seed=seed, progress=shares.append
        ).filter(pl.col("class") == "in")
        claimed.append((table["p"] <= 0.05).mean())
    assert np.mean(claimed) < 0.12
    assert shares[0] == 0
    assert shares[-1] == 1


@pytest.mark.slow
def test_intervals_hold_the_truth_where_whole_texts_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def held() -> float:
        each = []
        for seed in range(25):
            generator = np.random.default_rng(seed)
            text = np.repeat(np.arange(30), 60)
            ran = generator.random((1800, 8)) < generator.uniform(0.1, 0.9, (30, 8))[text]
            inside = generator.random(1800) < generator.uniform(0.1, 0.9, 30)[text]
            classes = pl.DataFrame({"f": np.where(inside, "in", "out").tolist()})
            trace = make_trace(tokens=1800, sequences=30, exec_count=ran)
            table = specialties(trace, classes, permutations=19, seed=seed)
            part = table.filter(pl.col("class") == "in")
            each.append(((part["low"] <= 0) & (part["high"] >= 0)).mean())
        return float(np.mean(each))

    assert 0.9 <= held() <= 0.99
    monkeypatch.setattr(blocks, "MIN_TEXTS_AS_GROUPS", 31)
    assert held() < 0.85, "blocks of a text are no sample of texts"
