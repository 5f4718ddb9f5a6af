from __future__ import annotations

import pytest

from skipviz.app.components.durations import all_take


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({"A": 20.0, "B": 100.0}, "About 2 minutes in all, as measured here: A 20 s, B 2 minutes."),
        (
            {"A": 20.0, "B": None, "C": None},
            "At least 20 s in all, as measured here: A 20 s. Not known before the first run here: "
            "B, C.",
        ),
        ({"A": None, "B": None}, "Time unknown before the first such runs here."),
    ],
)
def test_what_all_take_is_the_sum_of_what_is_known(
    seconds: dict[str, float | None], said: str
) -> None:
    assert all_take(seconds) == said
