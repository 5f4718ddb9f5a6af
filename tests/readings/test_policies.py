from __future__ import annotations

import polars as pl

from skipviz.readings.policies import frontier_reading, missed_reading

ROWS = [
    ("base", "dense", None, None, None),
    ("mine", "learned", 0.0, 0.0, 0.0),
    ("mine", "guarded", -0.001, -0.002, 0.001),
    ("again", "learned", -0.02, -0.03, -0.01),
    ("fixed", "static", 0.2, 0.1, 0.3),
    ("fixed", "static", 0.01, -0.1, 0.2),
    ("far", "random", None, None, None),
    ("far", "random", 0.3, 0.2, 0.4),
    ("far", "random", -0.3, -0.4, -0.2),
]
NAMES = ["model", "policy", "over_learned", "over_learned_low", "over_learned_high"]


def test_each_policy_is_compared_with_the_first_learned_gates() -> None:
    table = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    assert frontier_reading(table) == (
        "At equal budget, compared with the learned gates of mine, least lost first:\n\n"
        "1. again (learned) loses -0.020 nats, less (95% CI excludes 0).\n"
        "2. far (random) loses -0.300 to +0.300 nats, more at 1 and less at 1 of 2 budgets (95% CI "
        "excludes 0), and 1 not at equal budget, outside their range.\n"
        "3. fixed (static) loses +0.010 to +0.200 nats, more at 1 of 2 budgets (95% CI excludes 0)."
    )


def test_nothing_is_said_without_learned_gates_or_others() -> None:
    table = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    assert frontier_reading(table.filter(policy="static")) == ""
    assert frontier_reading(table.head(2)) == ""


def test_an_interval_around_zero_is_no_difference() -> None:
    rows = [*ROWS[:2], ("fixed", "static", 0.01, -0.1, 0.2)]
    said = frontier_reading(pl.DataFrame(rows, schema=NAMES, orient="row"))
    assert said.endswith("loses +0.010 nats, no difference distinguishable from zero.")


def test_intervals_that_are_drawn_are_not_said_to_be_missing() -> None:
    rows = [*ROWS[:2], ("fixed", "static", 0.2, 0.1, 0.3), ("fixed", "static", 0.1, None, None)]
    said = frontier_reading(pl.DataFrame(rows, schema=NAMES, orient="row"))
    assert said.endswith("more at 1 of 2 budgets (95% CI excludes 0), without an interval at 1.")
    alone = frontier_reading(pl.DataFrame([*rows[:2], rows[3]], schema=NAMES, orient="row"))
    assert "of a single document" in alone


def test_missed_budgets_are_named_with_what_helps() -> None:
    columns = {
        "model": ["base", "mine", "mine", "mine"],
        "policy": ["dense", "learned", "learned", "guarded"],
        "budget": [None, 0.8, 0.9, None],
        "realised": [1.0, 0.83, 0.919, 0.85],
    }
    said = missed_reading(pl.DataFrame(columns))
    assert said.startswith(
        "Budgets missed on these texts: mine (learned) was asked for 0.8 and realised 0.83. "
    )
    assert "`skipviz calibrate MODEL --budget 0.8 --text FILE`" in said
    assert missed_reading(pl.DataFrame(columns).filter(pl.col("budget") != 0.8)) == ""
