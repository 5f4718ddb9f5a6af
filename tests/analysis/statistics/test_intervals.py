from __future__ import annotations

import numpy as np
import pytest

from skipviz.analysis.statistics import blocks
from skipviz.analysis.statistics.blocks import dependent_groups
from skipviz.analysis.statistics.intervals import clustered_error, clustered_margin


def test_it_is_the_spread_of_the_mean_over_many_draws() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 8)
    means, errors = [], []
    for _ in range(400):
        values = generator.standard_normal(25)[groups] + generator.standard_normal(200)
        means.append(values.mean())
        errors.append(clustered_error(values, groups))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_groups_of_one_are_independent_values() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    usual = values.std(ddof=1) / np.sqrt(50)
    assert clustered_error(values, np.arange(50)) == pytest.approx(usual)


def test_a_single_group_says_nothing() -> None:
    assert np.isnan(clustered_error(np.array([1.0, 2.0]), np.array([7, 7])))


def test_few_groups_make_an_interval_as_wide_as_they_must() -> None:
    generator = np.random.default_rng(0)
    held = {3: 0.0, 30: 0.0}
    for count in held:
        groups = np.repeat(np.arange(count), 4)
        for _ in range(1000):
            values = generator.standard_normal(count)[groups]
            held[count] += (abs(values.mean()) < clustered_margin(values, groups)) / 1000
    assert held == pytest.approx({3: 0.95, 30: 0.95}, abs=0.02)
    assert np.isnan(clustered_margin(np.array([1.0, 2.0]), np.array([7, 7])))


def test_few_texts_are_parted_into_blocks_that_cross_none() -> None:
    groups = dependent_groups(np.repeat([7, 3, 5], [40, 20, 64]))
    assert np.bincount(groups).tolist() == [20, 32, 32, 32, 8]
    assert (groups == np.repeat([3, 4, 0, 1, 2], [32, 8, 20, 32, 32])).all()
    mixed = dependent_groups(np.tile([0, 1], 40))
    assert (mixed == np.tile([0, 2], 40) + np.repeat([0, 1], [64, 16])).all()
    assert len(dependent_groups(np.zeros(0, dtype=np.int64))) == 0


def test_intervals_hold_the_truth_where_whole_texts_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = np.repeat(np.arange(20), 200)

    def held() -> float:
        generator = np.random.default_rng(0)
        groups = dependent_groups(text)
        each = []
        for _ in range(600):
            values = generator.normal(0, 0.5, 20)[text] + generator.standard_normal(len(text))
            each.append(abs(values.mean()) < 1.96 * clustered_error(values, groups))
        return float(np.mean(each))

    assert 0.91 < held() < 0.98
    monkeypatch.setattr(blocks, "MIN_TEXTS_AS_GROUPS", 21)
    assert held() < 0.7, "blocks of a text are no sample of texts"
