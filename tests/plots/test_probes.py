from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from skipviz.plots import probe_accuracy, probe_selectivity
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=400, rate=0.6)


def named(figure: go.Figure, name: str) -> go.Scatter | go.Bar:
    return next(each for each in figure.data if each.name.startswith(name))


def test_probes_are_drawn_by_layer_and_part(trace: Trace) -> None:
    generator = np.random.default_rng(0)
    rows = [
        (name, layer, part, 100, *generator.random(4), 0.05, 5)
        for name in ("kind", "casing")
        for layer in range(-1, 6)
        for part in (("all", "executed", "skipped") if layer in (1, 2) else ("all",))
    ]
    schema = ["feature", "layer", "part", "tokens", "accuracy", "majority", "control"]
    table = pl.DataFrame(rows, schema=[*schema, "selectivity", "error", "groups"], orient="row")
    whole = table.filter(feature="kind", part="all")
    accuracy = probe_accuracy(trace, table, feature="kind")
    assert list(named(accuracy, "probe").y) == whole["accuracy"].to_list()
    assert list(named(accuracy, "control").y) == whole["control"].to_list()
    assert list(named(accuracy, "always").y) == whole["majority"].to_list()
    assert accuracy.layout.yaxis.title.text == "accuracy on unseen parts of the<br>text"
    several = probe_accuracy(make_trace(tokens=400, sequences=5), table, feature="kind")
    assert several.layout.yaxis.title.text == "accuracy on unseen texts"
    selectivity = probe_selectivity(trace, table, feature="kind")
    assert list(named(selectivity, "all tokens").y) == whole["selectivity"].to_list()
    skipped = table.filter(feature="kind", part="skipped")
    assert list(named(selectivity, "skipped").y) == skipped["selectivity"].to_list()
    assert named(selectivity, "ran").error_y.array[0] == pytest.approx(2.776 * 0.05, rel=1e-3)
