from __future__ import annotations

import threading
from typing import Any

import pytest

import skipviz
from skipviz.experiments.counterfactuals.text_frontier import (
    FRONTIER_POINTS,
    frontier_budgets,
    text_frontier,
)
from skipviz.models import at_threshold
from tests import tiny


def test_every_point_is_a_trace_at_its_threshold(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    seen: list[dict[str, Any]] = []
    shares: list[float] = []
    table = text_frontier(gated, trace, each=seen.append, progress=shares.append)
    assert table["asked"].to_list() == frontier_budgets(trace)
    assert table.height == len(seen) == FRONTIER_POINTS
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    for row in table.rows(named=True)[::4]:
        anew = skipviz.trace(at_threshold(gated, row["threshold"]), tiny.TEXT)
        assert row["loss"] == pytest.approx(anew.tokens["nll"].mean(), abs=1e-5)
        assert row["realised"] == pytest.approx(row["asked"], abs=0.02)


def test_it_stops_and_goes_on_from_what_is_known(gated: skipviz.SkipModel) -> None:
    trace = skipviz.trace(gated, tiny.TEXT)
    stop = threading.Event()
    seen: list[dict[str, Any]] = []

    def each(point: dict[str, Any]) -> None:
        seen.append(point)
        if len(seen) == 3:
            stop.set()

    with pytest.raises(skipviz.Stopped):
        text_frontier(gated, trace, each=each, stop=stop)
    assert [point["asked"] for point in seen] == frontier_budgets(trace)[:-4:-1]
