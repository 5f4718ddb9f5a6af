from __future__ import annotations

from typing import Any

from skipviz.readings.intervals import coefficient_words, no_interval_words, q_words, withheld_words


def test_an_interval_is_said_or_why_there_is_none() -> None:
    row = {"r": 0.5, "low": 0.25, "high": 0.75, "withheld": None, "r_detrended": 0.5}
    assert coefficient_words(row) == "+0.50, 95% interval +0.25 to +0.75"
    without = row | {"low": None, "high": None}
    assert coefficient_words(without) == "+0.50"
    few = coefficient_words(without | {"withheld": "weight"})
    assert few == "+0.50, no interval as the coefficient rests on too few tokens"
    drift = without | {"withheld": "trends", "r_detrended": -0.125}
    assert coefficient_words(drift).endswith("move the coefficient: -0.12 without them")
    assert coefficient_words(drift | {"r_detrended": None}).endswith("move the coefficient")


def test_a_missing_q_and_missing_intervals_are_said() -> None:
    assert (q_words(0.0123), q_words(None)) == ("q 0.012", "too little is left to test")
    assert withheld_words({}) == ""
    assert withheld_words({"trends": 3, "blocks": 1}) == (
        "Intervals that would not hold are not drawn: for 1, these are fewer than 8 blocks of 32 "
        "tokens; for 3, slow changes along the text move the coefficient."
    )


def test_why_several_coefficients_have_no_interval_is_said_once() -> None:
    few: dict[str, Any] = {"low": None, "withheld": "blocks"}
    drift, sure = few | {"withheld": "trends"}, {"low": 0.1, "withheld": None}
    assert no_interval_words([sure, sure]) == []
    assert no_interval_words([few] * 6) == [
        "No interval is given, as these are fewer than 8 blocks of 32 tokens."
    ]
    (mixed,) = no_interval_words([few, few, drift, sure])
    assert mixed.startswith("No interval is given for 2 of them, as these are fewer than 8 blocks")
    assert mixed.endswith("; for 1 of them, as slow changes along the text move the coefficient.")
