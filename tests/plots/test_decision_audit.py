from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.gates.quality import judged, quality_by, reliability
from skipviz.plots.decision_audit import ranking_by_layer, reliability_figure, utility_map
from skipviz.traces import Trace
from tests.synthetic import make_trace


@pytest.fixture
def trace() -> Trace:
    return make_trace(tokens=40)


@pytest.fixture
def cells(trace: Trace) -> pl.DataFrame:
    executed = trace.matrix("exec_count")[:-1] > 0
    utility = np.random.default_rng(0).standard_normal(executed.shape)
    token, site = np.indices(executed.shape).reshape(2, -1)
    return judged(
        trace,
        pl.DataFrame(
            {
                "token": token,
                "site": site,
                "executed": executed.ravel(),
                "nll": 3.0,
                "flipped_nll": 3.0,
                "utility": utility.ravel(),
            }
        ),
    )


def test_the_map_has_every_cell_in_its_place(trace: Trace, cells: pl.DataFrame) -> None:
    figure = utility_map(trace, cells)
    attention, mlp = figure.data
    assert len(attention.z) == len(mlp.z) == 4
    row = cells.filter(pl.col("token") == 7, pl.col("label") == "L2.mlp").row(0, named=True)
    assert mlp.z[list(mlp.y).index(2)][7] == pytest.approx(row["net"])
    assert np.isnan(np.array(mlp.z)[:, -1]).all()  # the last token predicts nothing
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert "nats" in figure.layout.coloraxis.colorbar.title.text


def test_regret_is_signed_by_what_would_have_been_right(trace: Trace, cells: pl.DataFrame) -> None:
    figure = utility_map(trace, cells, shown="regret")
    wrong = cells.filter(~pl.col("executed"), pl.col("worth")).row(0, named=True)
    part = next(p for p in figure.data if len(p.y) and p is figure.data[wrong["unit"] == "mlp"])
    assert part.z[list(part.y).index(wrong["layer"])][wrong["token"]] == pytest.approx(wrong["net"])
    assert (np.array(part.z) == 0).any()


def test_reliability_and_ranking_show_their_tables(trace: Trace, cells: pl.DataFrame) -> None:
    table = reliability(cells)
    assert list(reliability_figure(trace, table).data[0].y) == table["net"].to_list()
    sites = quality_by(cells, "label")
    figure = ranking_by_layer(trace, sites)
    assert [line.name for line in figure.data] == ["attention", "MLP"]
    shown = [value for line in figure.data for value in line.y]
    assert sorted(shown) == pytest.approx(sorted(sites["auroc"].to_list()))
