from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.robustness.decision_shift import shift_of_decisions
from skipviz.analysis.robustness.drift import LAYERS_USED
from skipviz.analysis.robustness.tails import over_dense, tails
from skipviz.plots.robustness import DOCUMENTS, change_figure, drift_figure, tails_figure
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=120, sequences=3)


@pytest.fixture
def changes() -> pl.DataFrame:
    generator = np.random.default_rng(0)
    kinds, words = ["typos", "<b>spacing</b>"], 160
    return shift_of_decisions(
        pl.DataFrame(
            {
                "kind": np.repeat(kinds, words),
                "touched": np.tile([True, False], words),
                "unit": [f"{i // 16}" for i in range(2 * words)],
                **{
                    name: generator.random(2 * words)
                    for name in ("moved", "apart", "layers_before", "layers_after")
                },
                "loss_before": 1.0,
                "loss_after": pl.Series([None] * (2 * words), dtype=pl.Float64),
            }
        ),
    )


def drifts(trace: Trace) -> pl.DataFrame:
    places = trace.sites.select("site", "label", "layer", "unit", "visit")
    whole = pl.DataFrame([dict.fromkeys(places.columns)], schema=places.schema)
    count = places.height + 1
    return pl.concat([whole, places]).with_columns(
        figure=pl.col("label").fill_null(LAYERS_USED),
        psi=pl.Series(np.linspace(0.0, 0.5, count)),
        psi_chance=0.05,
        ks=pl.Series(np.linspace(0.1, 0.4, count)),
        q=pl.Series([0.01, 0.2] * (count // 2) + [None] * (count % 2), dtype=pl.Float64),
        mean_before=1.0,
        mean_after=2.0,
        level=pl.lit("stable"),
    )


def test_changes_are_where_the_table_says(trace: Trace, changes: pl.DataFrame) -> None:
    figure = change_figure(trace, changes)
    named = {line.name: line for line in figure.data}
    for name, touched in (("changed words", True), ("other words", False)):
        part = changes.filter(pl.col("touched") == touched)
        line = named[name]
        assert list(line.x) == part["moved"].to_list()
        assert [round(y) for y in line.y] == [0, 1]
        ends = [x + more for x, more in zip(line.x, line.error_x.array, strict=True)]
        assert ends == pytest.approx(part["moved_high"].to_list())
    apart = [line for line in figure.data if line.name == "two unrelated words"]
    assert [x for line in apart for x in line.x] == [
        *changes.filter("touched")["apart"], *changes.filter(~pl.col("touched"))["apart"],
    ]  # fmt: skip
    assert sum(bool(line.showlegend) for line in apart) == 1
    assert "160 words" in figure.layout.xaxis.title.text

    assert not change_figure(trace, changes, shown="loss").data  # nothing is known of it


def test_tails_are_a_line_a_document_the_heaviest_first(trace: Trace) -> None:
    table = tails(trace, over_dense(trace, trace))
    figure = tails_figure(trace, table, shown="nll")
    marks = {line.name: line for line in figure.data if line.mode == "markers"}
    ordered = table.sort("nll_p99", descending=True)
    assert list(marks["99% are below"].x) == ordered["nll_p99"].to_list()
    assert list(marks["half of the tokens are below"].x) == ordered["nll_p50"].to_list()
    assert "text" in figure.layout.yaxis.ticktext[0]
    assert tails_figure(trace, table).layout.xaxis.range == (1.5, 6.5)
    with pytest.raises(ValueError, match="layers_used, nll"):
        tails_figure(trace, tails(trace), shown="over_dense")


def test_of_many_documents_the_heaviest_are_drawn() -> None:
    trace = make_trace(tokens=200, sequences=40)
    figure = tails_figure(trace, tails(trace))
    assert len(figure.data[-1].x) == DOCUMENTS
    assert "40 documents" in figure.layout.annotations[-1].text


def test_drift_shows_thresholds_chance_and_what_chance_explains(trace: Trace) -> None:
    table = drifts(trace)
    figure = drift_figure(trace, table)
    bars = [line for line in figure.data if line.type == "bar"]
    assert [bar.name for bar in bars] == ["attention", "MLP"]
    for bar, unit in zip(bars, ("attn", "mlp"), strict=True):
        part = table.filter(pl.col("unit") == unit)
        assert list(bar.y) == part["psi"].to_list()
        sure = [q is not None and q < 0.05 for q in part["q"]]
        assert [opacity == 1 for opacity in bar.marker.opacity] == sure
    names = [line.name for line in figure.data]
    assert {"shifted, from 0.1", "drifted, from 0.25", "expected without drift"} <= set(names)
    distance = drift_figure(trace, table, shown="ks")
    assert {line.type for line in distance.data} == {"bar"}
    assert "Kolmogorov" in distance.layout.yaxis.title.text
