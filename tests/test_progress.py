from __future__ import annotations

import threading

import pytest

from skipviz.errors import Stopped
from skipviz.progress import Meter, check_stop, no_progress


def test_a_meter_says_the_share_that_is_done_and_never_more() -> None:
    said: list[float] = []
    meter = Meter(4, said.append, None)
    for steps in (1, 2, 2):
        meter.advance(steps)
    assert said == [0.25, 0.75, 1.0]


def test_a_step_of_a_stopped_run_is_not_counted() -> None:
    said: list[float] = []
    stop = threading.Event()
    meter = Meter(2, said.append, stop)
    meter.advance()
    stop.set()
    with pytest.raises(Stopped, match="The run was stopped"):
        meter.advance()
    assert said == [0.5]


def test_a_run_without_an_event_goes_on() -> None:
    check_stop(None)
    check_stop(threading.Event())
    no_progress(0.5)
