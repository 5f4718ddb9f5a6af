from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from skipviz.analysis.robustness.decision_shift import MIN_UNITS, mean_by_unit, shift_of_decisions


def rows(kind: str, *, touched: bool, moved: list[float | None], unit: list[str]) -> pl.DataFrame:
    count = len(moved)
    return pl.DataFrame(
        {
            "kind": [kind] * count,
            "touched": [touched] * count,
            "unit": unit,
            "moved": pl.Series(moved, dtype=pl.Float64),
            "apart": [0.5] * count,
            "layers_before": [3.0] * count,
            "layers_after": [2.5] * count,
            "loss_before": [1.0] * count,
            "loss_after": [1.25] * count,
        }
    )


def test_rows_are_kinds_those_touched_first() -> None:
    words = pl.concat(
        [
            rows("b", touched=False, moved=[0.0, 0.2, None], unit=["x", "x", "y"]),
            rows("b", touched=True, moved=[0.4], unit=["x"]),
            rows("a", touched=False, moved=[0.1], unit=["x"]),
        ]
    )
    table = shift_of_decisions(words)
    assert table.select("kind", "touched", "words", "units").rows() == [
        ("b", True, 1, 1),
        ("b", False, 3, 2),
        ("a", False, 1, 1),
    ]
    assert table["moved"].to_list() == pytest.approx([0.4, 0.1, 0.1])
    assert table["layers"].to_list() == pytest.approx([-0.5] * 3)
    assert table["loss"].to_list() == pytest.approx([0.25] * 3)
    assert table["moved_low"].null_count() == 3  # too few stretches


def test_nothing_known_is_null() -> None:
    table = shift_of_decisions(rows("a", touched=True, moved=[None], unit=["x"]))
    assert table["moved"].item() is None


def test_independent_values_have_the_interval_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=20)
    mean, low, high = mean_by_unit(values, np.arange(20))
    known = stats.ttest_1samp(values, 0.0).confidence_interval()
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((known.low, known.high))


@pytest.mark.parametrize("units", [5, 30])
def test_intervals_hold_the_truth_where_words_of_a_stretch_are_alike(units: int) -> None:
    held = naive = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        count = units * 16
        values = np.repeat(generator.normal(size=units), 16) + generator.normal(size=count)
        _, low, high = mean_by_unit(values, np.arange(count) // 16)
        held += low <= 0 <= high
        naive += abs(values.mean()) <= 1.96 * values.std() / count**0.5
    assert 0.93 <= held / 400 <= 0.97
    assert naive / 400 < 0.6


def test_shares_stay_shares() -> None:
    words = rows("a", touched=True, moved=[0.0] * 5 + [0.2], unit=list("uvwxyz"))
    row = shift_of_decisions(words).row(0, named=True)
    assert row["moved_low"] == 0.0
    assert row["moved_high"] > row["moved"]


def test_few_stretches_have_no_interval() -> None:
    for units in (MIN_UNITS - 1, MIN_UNITS):
        _, low, _ = mean_by_unit(np.ones(units), np.arange(units))
        assert np.isnan(low) == (units < MIN_UNITS)
