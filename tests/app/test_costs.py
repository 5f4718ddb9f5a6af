from __future__ import annotations

import pytest

from skipviz.app.components.durations import in_words, takes
from skipviz.app.costs import KEPT_MEASUREMENTS, Costs, Effort


def test_nothing_is_told_of_what_was_never_measured() -> None:
    costs = Costs()
    costs.learn(Effort("trace a", 100), 1.0)
    assert costs.seconds(Effort("trace b", 100)) is None
    assert "unknown" in takes(costs.seconds(Effort("audit", 100)))


def test_the_run_of_the_nearest_size_tells_how_long() -> None:
    costs = Costs()
    costs.learn(Effort("k", 10), 1.0)  # small runs are slow for their size
    costs.learn(Effort("k", 1000), 20.0)
    assert costs.seconds(Effort("k", 12)) == pytest.approx(1.2)
    assert costs.seconds(Effort("k", 2000)) == pytest.approx(40.0)


def test_the_latest_of_equal_runs_counts_and_old_ones_are_dropped() -> None:
    costs = Costs()
    costs.learn(Effort("k", 10), 1.0)
    costs.learn(Effort("k", 10), 3.0)
    assert costs.seconds(Effort("k", 10)) == pytest.approx(3.0)
    for _ in range(KEPT_MEASUREMENTS):
        costs.learn(Effort("k", 1000), 1000.0)
    assert costs.seconds(Effort("k", 10)) == pytest.approx(10.0)


def test_a_run_of_no_size_teaches_nothing() -> None:
    costs = Costs()
    costs.learn(Effort("k", 0), 1.0)
    assert costs.seconds(Effort("k", 0)) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (55, "55 s"), (89.4, "89 s"), (150, "2 minutes")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
