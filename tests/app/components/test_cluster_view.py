from __future__ import annotations

import polars as pl

from skipviz.app.components.cluster_view import payload
from skipviz.plots.style.palette import CLUSTER_COLOURS
from tests.synthetic import make_trace


def test_the_browser_gets_text_cluster_and_what_is_lit() -> None:
    trace = make_trace(tokens=30, sequences=2)
    labels = pl.Series("cluster", [0, 1, None] * 10, dtype=pl.Int64)
    sent = payload(trace, labels.to_frame(), key="k", lit={7, 2})
    assert sent["key"] == "k"
    assert sent["tokens"]["cluster"].to_list() == [0, 1, -1] * 10
    assert sent["tokens"]["source"].to_list() == trace.tokens["source"].to_list()
    assert sent["lit"]["token"].to_list() == [2, 7]
    assert sent["colours"] == list(CLUSTER_COLOURS)
    assert set(sent["inks"]) == {"#000", "#fff"}
    assert payload(trace, labels.to_frame(), key="k", lit=None)["lit"] is None
    assert len(payload(trace, labels.to_frame(), key="k", lit=set())["lit"]) == 0
