from __future__ import annotations

import numpy as np
import pytest

from skipviz.evaluation.bounded_means import bets, betting_p_value

ALPHA = 0.05
DRAWS = 400
MAPIE: dict[tuple[float, float, int, float], float] = {
    (2.0, 5.0, 60, 0.1): 0.32116040100250626,
    (0.3, 3.0, 200, 0.05): 0.12106015037593984,
    (5.0, 1.0, 100, 0.01): 0.8714360902255639,
}
"""By the shape of a beta distribution, draws and error rate."""


def skewed(generator: np.random.Generator, count: int, mean: float) -> np.ndarray:
    """Documents of which one in thirty loses 0.9 nats, and the others next to nothing."""
    rare = generator.random(count) < 1 / 30
    return np.where(rare, 0.9, (mean - 0.9 / 30) / (1 - 1 / 30))


def passed(mean: float, count: int) -> float:
    generator = np.random.default_rng(0)
    found = [
        betting_p_value(skewed(generator, count, mean), 0.1, bound=1.0, confidence=0.95, seed=n)
        for n in range(DRAWS)
    ]
    return float(np.mean(np.array(found) <= ALPHA))


@pytest.mark.parametrize("count", [20, 120, 300])
def test_a_promise_is_broken_no_more_often_than_said(count: int) -> None:
    assert passed(0.1, count) <= ALPHA


def test_many_documents_are_enough_for_a_promise() -> None:
    assert passed(0.05, 300) > 0.9


def test_losses_beyond_the_bound_count_as_the_bound() -> None:
    losses = np.random.default_rng(0).normal(0.0, 0.05, 200)
    far, near = losses.copy(), losses.copy()
    far[7], near[7] = 50.0, 1.0
    found = betting_p_value(far, 0.1, bound=1.0, confidence=0.95)
    assert found == betting_p_value(near, 0.1, bound=1.0, confidence=0.95)
    assert found > betting_p_value(losses, 0.1, bound=1.0, confidence=0.95)


def test_bets_are_those_of_mapie() -> None:
    """Upper bounds of MAPIE 1.6.0, ``get_r_hat_plus(..., "rcps", "wsr", delta, 0.25)``.

    MAPIE multiplies the greatest wealths of the two halves of a sample.
    """
    levels = np.linspace(0.001, 0.999, 400)
    for (a, b, count, delta), wanted in MAPIE.items():
        shares = np.random.default_rng(0).beta(a, b, count)
        halves = slice(count // 2), slice(count // 2, count)
        wealth = [
            sum(np.cumsum(bets(shares, level, confidence=1 - delta)[half]).max() for half in halves)
            for level in levels
        ]
        found = levels[np.argmax(np.array(wealth) > -np.log(delta))]
        assert found == pytest.approx(wanted)
        try:
            from mapie.risk_control.methods import get_r_hat_plus
        except ImportError:
            continue
        repeated = np.repeat(shares[:, None], len(levels), axis=1)
        assert found == pytest.approx(
            get_r_hat_plus(repeated, levels, "rcps", "wsr", delta, 0.25)[1][0]
        )
