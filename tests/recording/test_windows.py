from __future__ import annotations

import pytest

from skipviz.errors import InputError
from skipviz.recording.windows import Window, plan_windows


def test_windows_share_what_they_are_told_and_report_every_token_once() -> None:
    assert plan_windows(10, window=4, overlap=1) == [
        Window(0, 4, 0), Window(3, 7, 4), Window(6, 10, 7),
    ]  # fmt: skip
    assert plan_windows(9, window=4, overlap=2) == [
        Window(0, 4, 0), Window(2, 6, 4), Window(4, 8, 6), Window(6, 9, 8),
    ]  # fmt: skip
    assert plan_windows(4, window=4, overlap=0) == [Window(0, 4, 0)]
    assert plan_windows(5, window=4, overlap=0) == [Window(0, 4, 0), Window(4, 5, 4)]
    assert plan_windows(0, window=4, overlap=3) == [Window(0, 0, 0)]


@pytest.mark.parametrize("overlap", [-1, 4, 5])
def test_an_overlap_is_less_than_a_window(overlap: int) -> None:
    with pytest.raises(InputError, match=f"overlap={overlap} must be at least 0"):
        plan_windows(9, window=4, overlap=overlap)
