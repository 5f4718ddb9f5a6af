from __future__ import annotations

import numpy as np
import pytest

from skipviz.analysis.spread import grouped_error


def test_it_is_the_spread_of_the_mean_over_many_draws() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(25), 8)
    means, errors = [], []
    for _ in range(400):
        values = generator.standard_normal(25)[groups] + generator.standard_normal(200)
        means.append(values.mean())
        errors.append(grouped_error(values, groups))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_groups_of_one_are_independent_values() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    usual = values.std(ddof=1) / np.sqrt(50)
    assert grouped_error(values, np.arange(50)) == pytest.approx(usual)


def test_a_single_group_says_nothing() -> None:
    assert np.isnan(grouped_error(np.array([1.0, 2.0]), np.array([7, 7])))
