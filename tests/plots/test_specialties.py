from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.layers.specialties import specialties
from skipviz.analysis.statistics.multiple_tests import FALSE_DISCOVERY_RATE
from skipviz.plots import specialty_map
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=400, rate=0.6)


def test_the_map_has_the_log_odds_and_marks_what_is_sure(trace: Trace) -> None:
    generator = np.random.default_rng(0)
    ran = trace.matrix("exec_count") > 0
    classes = np.where(ran[:, 3], "<b>runs</b>", generator.choice(["one", "two"], 400))
    table = specialties(trace, pl.DataFrame({"f": classes.tolist()}), seed=0)
    figure = specialty_map(trace, table, feature="f")
    maps = [each for each in figure.data if each.type == "heatmap"]
    dots = [each for each in figure.data if each.type == "scatter"]
    for place, unit in enumerate(["attn", "mlp"]):
        part = table.filter(unit=unit)
        shown = zip(maps[place].x, maps[place].y, maps[place].z, strict=True)
        for (layer, name, odds), row in zip(
            shown, part.sort("layer", "visit").rows(named=True), strict=True
        ):
            assert (layer, odds) == (row["layer"], row["log_odds"])
            assert name == row["class"].replace("<", "&lt;").replace(">", "&gt;")
        assert len(dots[place].x) == part.filter(pl.col("q") < FALSE_DISCOVERY_RATE).height
    assert len(dots[1].x) > 0
    assert [each.showlegend for each in dots] == [len(dots[0].x) > 0, len(dots[0].x) == 0]
    nothing = specialty_map(trace, table.with_columns(q=pl.lit(1.0)), feature="f")
    assert not any(each.showlegend for each in nothing.data if each.type == "scatter")
    limits = figure.layout.coloraxis
    assert limits.cmin == -limits.cmax
    with pytest.raises(ValueError, match="Choose one of f"):
        specialty_map(trace, table, feature="g")
