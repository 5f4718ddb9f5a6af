"""Every notebook cell that a page offers for the sample draws the figure that the page shows."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from skipviz.app.components.canvas import Selection
from skipviz.app.components.downloads import trace_file
from skipviz.app.frame import text_canvas
from skipviz.app.frame.opening import sample
from skipviz.folders import samples_folder
from skipviz.tables import csv_text
from tests.app.pages import PATIENCE, framed, until


def figure_of(cell: str) -> dict[str, Any]:
    """Run a cell as a notebook does, and return the figure that it ends in."""
    *lines, last = ast.parse(cell).body
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {}
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    figure = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    found: dict[str, Any] = json.loads(figure.to_json())
    return found


def shown(page: AppTest) -> list[dict[str, Any]]:
    """Return the figures that a page shows."""
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


def check_cells(page: AppTest, *, number: int) -> None:
    cells = [block.value for block in page.code if "import skipviz" in block.value]
    assert len(cells) == number
    figures = shown(page)
    for cell in cells:
        drawn = figure_of(cell)
        assert any(
            figure["data"] == drawn["data"]
            and figure["layout"]["title"]["text"] == drawn["layout"]["title"]["text"]
            for figure in figures
        ), cell


@pytest.fixture(autouse=True)
def _beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the files lie that the pages offer."""
    monkeypatch.chdir(tmp_path)
    Path("trace.parquet").write_bytes(trace_file(sample()[1]))
    table = pl.read_csv(samples_folder() / "frontier.csv")
    Path("frontier.csv").write_text(csv_text(table), encoding="utf-8")


def opened(view: str) -> AppTest:
    page = AppTest.from_function(framed, args=(view,)).run(timeout=PATIENCE)
    assert not page.exception, page.exception
    return page


def ended(page: AppTest, name: str) -> Any:
    """Wait until a run has ended and is shown; return what came out."""
    result = page.session_state["skipviz"].runs[name].job.future.result(600)
    until(page, lambda: len(shown(page)) > 0)
    return result


@pytest.mark.parametrize(("view", "number"), [("paths_page", 3), ("cost_page", 1)])
def test_figures_of_the_trace(view: str, number: int) -> None:
    check_cells(opened(view), number=number)


@pytest.fixture
def _ranged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose a range of tokens on the canvas."""
    monkeypatch.setattr(text_canvas, "canvas", lambda *_, **__: Selection(range=(10, 90)))


@pytest.mark.parametrize(("view", "number"), [("paths_page", 3), ("cost_page", 1)])
@pytest.mark.usefixtures("_ranged")
def test_figures_of_a_range(view: str, number: int) -> None:
    check_cells(opened(view), number=number)


@pytest.mark.slow
@pytest.mark.usefixtures("_ranged")
def test_layers_of_a_range() -> None:
    test_layers()


@pytest.mark.slow
def test_the_frontier() -> None:
    check_cells(opened("policies_page"), number=1)


@pytest.mark.slow
def test_layers() -> None:
    page = opened("layers_page")
    ended(page, "layers specialties False")
    check_cells(page, number=1)
    page.button_group(key="layers_view").set_value("Difficulty").run(timeout=PATIENCE)
    ended(page, "layers difficulty")
    check_cells(page, number=len(shown(page)))


@pytest.mark.slow
def test_clusters() -> None:
    page = opened("clusters_page")
    page.button(key="try clusters").click().run(timeout=PATIENCE)
    ended(page, "clusters").clusters.save(Path("clusters.parquet"))
    check_cells(page, number=2)
