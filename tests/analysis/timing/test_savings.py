"""Time saved over work saved, on planted times."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from skipviz.analysis.timing.measured import RUNS
from skipviz.analysis.timing.savings import WorkSaved, median_interval, savings

SLOW = (1.0, 4.0, 2.0, 1.5, 3.0, 1.0, 2.5)
"""How slow the machine was in each round."""


def runs(share: float, *, rounds: int = 7, phase: str = "prefill") -> pl.DataFrame:
    rows = [
        {"round": number, "phase": phase, "runtime": name, "sequence": 0, "token": None,
         "tokens": 10, "layers_used": 4.0, "seconds": SLOW[number] * part}
        for number in range(rounds)
        for name, part in (("dense", 1.0), ("gathered", share))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=RUNS)


def test_a_slow_machine_changes_nothing_as_rounds_are_compared_within() -> None:
    (row,) = savings(runs(0.82), {"prefill": WorkSaved(flops=0.30)}).to_dicts()
    assert row["time_saved"] == pytest.approx(0.18)
    assert row["over_flops"] == pytest.approx(0.6)
    assert row["over_flops_low"] == row["over_flops_high"] == pytest.approx(0.6)
    assert row["dense_seconds"] == 2.0
    assert row["rounds"] == 7
    assert row["over_bytes"] is None


def test_too_few_rounds_have_no_interval() -> None:
    (row,) = savings(runs(0.8, rounds=5), {"prefill": WorkSaved(flops=0.4)}).to_dicts()
    assert row["over_flops"] == pytest.approx(0.5)
    assert row["over_flops_low"] is None
    assert row["over_flops_high"] is None


@pytest.mark.parametrize("flops", [0.0, 0.009, -0.2, None])
def test_where_nothing_is_saved_the_ratio_is_unknown(flops: float | None) -> None:
    (row,) = savings(runs(0.9), {"prefill": WorkSaved(flops=flops)}).to_dicts()
    assert row["over_flops"] is None
    assert row["over_flops_low"] is None
    assert row["time_saved"] == pytest.approx(0.1)


def test_without_a_dense_model_there_is_nothing_to_compare() -> None:
    alone = runs(0.9).filter(runtime="gathered")
    assert savings(alone, {"prefill": WorkSaved(flops=0.3)}).is_empty()


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).standard_normal((400, 12))
    found = [median_interval(each) for each in drawn]
    held = np.mean([low is not None and high is not None and low <= 0 <= high
                    for _, low, high in found])  # fmt: skip
    assert held >= 0.93
    assert median_interval(drawn[0])[0] == np.median(drawn[0])
    # Of seven, the smallest and the largest: half to the seventh, twice, lies outside.
    few = drawn[0][:7]
    assert median_interval(few)[1:] == (few.min(), few.max())
    assert 2 * stats.binom.pmf(0, 7, 0.5) < 0.05
