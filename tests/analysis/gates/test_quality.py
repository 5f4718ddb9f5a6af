"""Planted utilities: what a right gate, a wrong one and a blind one must come to."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

import skipviz
from skipviz.analysis.flops import saved_flops
from skipviz.analysis.gates.quality import (
    controls,
    greedy_execution,
    implied_price,
    judged,
    quality,
    quality_by,
    reliability,
)
from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from tests import tiny

TOKENS = 400


@pytest.fixture(scope="module")
def traced() -> skipviz.Trace:
    model = skipviz.from_parts(tiny.gated(seed=0, context=1024), tiny.tokenizer())
    return skipviz.trace(model, (tiny.TEXT * 12)[:1200], statistics=False)


def planted(
    traced: skipviz.Trace, utility: npt.NDArray[np.float64], margin: npt.NDArray[np.float64]
) -> tuple[skipviz.Trace, pl.DataFrame]:
    """A trace whose gates have these margins, and the cells of an audit with these utilities."""
    threshold = traced.matrix("threshold")
    matrices = {
        **traced.matrices,
        "score": (margin + threshold).astype(np.float32),
        "exec_count": (margin > 0).astype(np.uint8),
    }
    trace = dataclasses.replace(traced, matrices=matrices)
    token, site = np.indices(utility.shape).reshape(2, -1)
    executed = (margin > 0).ravel()
    cells = pl.DataFrame(
        {
            "token": token,
            "site": site,
            "executed": executed,
            "nll": 3.0,
            "flipped_nll": 3.0 + np.where(executed, 1, -1) * utility.ravel(),
            "utility": utility.ravel(),
        }
    )
    return trace, cells


def utilities(traced: skipviz.Trace, *, seed: int = 0) -> npt.NDArray[np.float64]:
    shape = (len(traced) - 1, traced.sites.height)
    return np.random.default_rng(seed).standard_normal(shape)


def padded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.concatenate([values, np.ones((1, values.shape[1]))])


def test_a_right_gate_has_no_regret(traced: skipviz.Trace) -> None:
    utility = utilities(traced)
    trace, cells = planted(traced, padded(utility), padded(utility))
    found = quality(judged(trace, cells))
    assert (found.auroc, found.average_precision, found.right) == (1, 1, 1)
    assert found.regret == 0
    assert found.calibration_error < 0.05


def of_chances(seed: int, *, off: float) -> pl.DataFrame:
    """1,040 decisions whose true log-odds are their scores, or those and a curve."""
    generator = np.random.default_rng(seed)
    margin = generator.normal(size=1040)
    chance = 1 / (1 + np.exp(-(margin + off * (margin**2 - 1))))
    worth = generator.random(1040) < chance
    columns = {"token": np.repeat(np.arange(65), 16), "margin": margin, "worth": worth}
    return pl.DataFrame(columns).with_columns(executed=pl.col("worth"), regret=pl.lit(0.0))


def test_a_calibrated_score_is_known_as_such_and_another_is_not() -> None:
    found = [quality(of_chances(seed, off=0.0), seed=seed) for seed in range(60)]
    errors, chance = (
        np.mean([getattr(each, name) for each in found])
        for name in ("calibration_error", "calibrated")
    )
    assert errors == pytest.approx(0.035, abs=0.005)
    assert chance == pytest.approx(errors, abs=0.004)
    # 5% are 3 of 60; more than 8 are 0.3% of the time.
    assert sum(each.calibration_error > each.calibrated_high for each in found) <= 8
    wrong = [quality(of_chances(seed, off=1.0), seed=seed) for seed in range(10)]
    assert all(each.calibration_error > each.calibrated_high for each in wrong)


def test_two_blocks_of_tokens_are_enough_for_a_calibration_error_and_one_is_not() -> None:
    cells = of_chances(0, off=0.0)
    two = quality(cells.filter(pl.col("token") < 2 * BLOCK_TOKENS), seed=0)
    one = quality(cells.filter(pl.col("token") < BLOCK_TOKENS), seed=0)
    assert 0 < two.calibration_error < 0.2
    assert np.isnan(one.calibration_error)


def test_a_wrong_gate_regrets_everything(traced: skipviz.Trace) -> None:
    utility = utilities(traced)
    trace, cells = planted(traced, padded(utility), -padded(utility))
    found = quality(judged(trace, cells))
    assert found.auroc == found.right == 0
    assert found.regret == pytest.approx(np.abs(padded(utility)).sum())


def test_a_blind_gate_is_at_chance(traced: skipviz.Trace) -> None:
    utility = utilities(traced)
    trace, cells = planted(traced, padded(utility), padded(utilities(traced, seed=1)))
    found = quality(judged(trace, cells))
    spread = 0.5 / np.sqrt(cells.height / 4)
    assert found.auroc == pytest.approx(0.5, abs=4 * spread)
    assert found.average_precision == pytest.approx(found.worth, abs=0.1)
    assert controls(judged(trace, cells), seed=7)["random"].auroc == pytest.approx(
        0.5, abs=4 * spread
    )


def test_a_price_makes_cheap_utility_not_worth_it(traced: skipviz.Trace) -> None:
    flops = saved_flops(traced)[:-1]
    utility = flops * 2e-6
    trace, cells = planted(traced, padded(utility), padded(utility))
    cells = cells.filter(pl.col("token") < len(traced) - 1)
    assert quality(judged(trace, cells, price=1e-6)).worth == 1
    assert quality(judged(trace, cells, price=3e-6)).worth == 0
    net = judged(trace, cells, price=1e-6)["net"].to_numpy()
    np.testing.assert_allclose(net, flops.ravel() * 1e-6)


def test_the_implied_price_spends_what_was_spent(traced: skipviz.Trace) -> None:
    utility = np.abs(utilities(traced))
    trace, cells = planted(traced, padded(utility), padded(utilities(traced, seed=1)))
    cells = cells.filter(pl.col("token") < len(traced) - 1)
    price = implied_price(trace, cells)
    marked = judged(trace, cells, price=price)
    spent = marked.filter("executed")["flops"].sum()
    afforded = marked.filter("worth")["flops"].sum()
    assert price > 0
    assert afforded == pytest.approx(spent, rel=0.01)


def test_a_gate_that_knows_its_site_but_not_the_token_is_found_out(traced: skipviz.Trace) -> None:
    shape = (len(traced) - 1, traced.sites.height)
    of_site = np.linspace(-2, 2, shape[1])[None]
    utility = of_site + utilities(traced)
    trace, cells = planted(traced, padded(utility), padded(np.broadcast_to(of_site, shape).copy()))
    marked = judged(trace, cells)
    whole = quality(marked)
    assert whole.auroc > 0.8
    assert controls(marked, seed=0)["shuffled"].auroc == pytest.approx(whole.auroc, abs=0.01)
    by_site = quality_by(marked.filter(pl.col("token") < len(traced) - 1), "label")
    assert by_site["auroc"].to_numpy() == pytest.approx([0.5] * shape[1])
    assert by_site["label"].to_list() == traced.sites["label"].to_list()


def test_reliability_follows_the_utility(traced: skipviz.Trace) -> None:
    utility = utilities(traced)
    trace, cells = planted(traced, padded(utility), padded(utility))
    table = reliability(judged(trace, cells))
    assert table["bin"].to_list() == list(range(10))
    assert table["cells"].sum() == cells.height
    assert table["utility"].is_sorted()
    assert table["worth"][0] == 0
    assert table["worth"][-1] == 1
    few = judged(trace, cells).filter(pl.col("token") < BLOCK_TOKENS)
    assert reliability(few)["net_margin"].null_count() == 10  # one block says nothing of chance


def test_what_skipping_saves_is_what_the_budget_loses(traced: skipviz.Trace) -> None:
    from skipviz.analysis.flops import token_flops

    full = dataclasses.replace(
        traced,
        matrices={**traced.matrices, "exec_count": np.ones_like(traced.matrix("exec_count"))},
    )
    ran = traced.matrix("exec_count") > 0
    saved = (saved_flops(traced) * ~ran).sum(axis=1)
    lost = token_flops(full)["total"].to_numpy() - token_flops(traced)["total"].to_numpy()
    np.testing.assert_allclose(saved, lost)


def test_the_greedy_policy_runs_what_is_worth_most_a_flop_and_spends_no_more(
    traced: skipviz.Trace,
) -> None:
    utility = utilities(traced, seed=5)
    seen, cells = planted(traced, padded(utility), padded(utilities(traced, seed=6)))
    made = greedy_execution(seen, cells.filter(pl.col("token") < len(utility)))
    flops = saved_flops(seen)
    before = seen.matrix("exec_count") > 0
    assert (made[-1] == before[-1]).all()
    spent, allowed = (flops[:-1][each[:-1]].sum() for each in (made, before))
    assert allowed - flops.max() < spent <= allowed
    rate = utility / flops[:-1]
    assert rate[made[:-1]].min() >= rate[~made[:-1]].max()
