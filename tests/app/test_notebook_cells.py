"""Every notebook cell that a page offers for the sample draws the figure that the page shows."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from skipviz.analysis.timing.bench_rows import write_bench
from skipviz.app.components.canvas import Selection
from skipviz.app.components.downloads import trace_file
from skipviz.app.components.run_button import PATHS
from skipviz.app.frame import text_canvas
from skipviz.app.frame.opening import sample
from skipviz.app.views.corpus_page.comparing import OTHERS
from skipviz.corpus.reading.root import CORPORA
from skipviz.folders import samples_folder
from skipviz.tables import csv_text
from tests import tiny
from tests.app.pages import PATIENCE, framed, page_of_text, until, until_ended
from tests.corpus.asked import made_parts, write_corpus
from tests.folders import write_gated
from tests.plots.test_timing import BENCHES

TEXT = tiny.TEXT[:40]
SENTENCES = "A bird sang. It was late in May. Two men saw it and went home. Nobody else was there."
LAYERS = {
    "Probes": "probes False", "Predictions": "predictions", "Attention": "attention",
    "Tasks": "tasks",
}  # fmt: skip


def result_of(cell: str, known: dict[str, dict[str, Any]]) -> Any:
    """Run a cell as a notebook does, and return what it ends in.

    Cells of a page begin alike: what the lines above assigned in another cell is in ``known``.
    """
    *lines, last = ast.parse(cell).body
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {}
    so_far = ""
    for line in lines:
        code = compile(ast.Module([line], []), "cell", "exec")
        if isinstance(line, ast.Import | ast.ImportFrom):
            exec(code, names)
            continue
        so_far += f"{ast.unparse(line)}\n"
        if so_far not in known:
            before = dict(names)
            exec(code, names)
            known[so_far] = {n: v for n, v in names.items() if before.get(n) is not v}
        names |= known[so_far]
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def figure_of(cell: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run a cell, and return the figure that it ends in."""
    found: dict[str, Any] = json.loads(result_of(cell, known).to_json())
    return found


def shown(page: AppTest) -> list[dict[str, Any]]:
    """Return the figures that a page shows."""
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


def cells_of(page: AppTest) -> list[str]:
    return [block.value for block in page.code if "import skipviz" in block.value]


def check_cells(page: AppTest, *, number: int) -> None:
    cells = [cell for cell in cells_of(page) if "HTML(" not in cell]
    assert len(cells) == number
    figures, known = shown(page), dict[str, dict[str, Any]]()
    for cell in cells:
        drawn = figure_of(cell, known)
        same = [
            figure
            for figure in figures
            if figure["data"] == drawn["data"]
            and figure["layout"]["title"]["text"] == drawn["layout"]["title"]["text"]
        ]
        assert same, cell
        figures.remove(same[0])  # each cell is of another figure


@pytest.fixture(autouse=True)
def _beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the files lie that the pages offer."""
    st.get_option("server.address")  # Streamlit reads its settings once, where it is at first
    monkeypatch.chdir(tmp_path)
    Path("trace.parquet").write_bytes(trace_file(sample()[1]))
    table = pl.read_csv(samples_folder() / "frontier.csv")
    Path("frontier.csv").write_text(csv_text(table), encoding="utf-8")


def opened(view: str) -> AppTest:
    page = AppTest.from_function(framed, args=(view,)).run(timeout=PATIENCE)
    assert not page.exception, page.exception
    return page


@pytest.fixture
def folder(tmp_path: Path, dense_folder: Path) -> Path:
    return write_gated(tmp_path / "gated", backbone=dense_folder)


def opened_on(view: str, folder: Path, text: str) -> AppTest:
    """Open a page on a text that a tiny model has traced, which is saved as the page offers it."""
    page = AppTest.from_function(page_of_text, args=(view, str(folder), text))
    page.run(timeout=PATIENCE)
    assert not page.exception, page.exception
    traced = page.session_state["skipviz"].runs[PATHS].job.future.result()
    Path("trace.parquet").write_bytes(trace_file(traced))
    return page


def asked(page: AppTest, *names: str) -> None:
    """Have a page make runs, and wait for each."""
    for name in names:
        page.button(key=f"try {name}").click().run(timeout=PATIENCE)
        until_ended(page)
        assert not page.error, page.error[0].value


def choose_range(page: AppTest, ends: tuple[int, int]) -> None:
    (on,) = page.session_state["skipviz"].canvases.values()
    on.selection = Selection(range=ends)
    page.run(timeout=PATIENCE)
    assert any("only" in each.value for each in page.info)


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
    check_cells(page, number=3)


def benches() -> None:
    """The script of what the page of cost shows of a file of benches."""
    from pathlib import Path

    from skipviz.analysis.timing.bench_rows import read_bench
    from skipviz.app.views.cost_page import show_benches

    show_benches(read_bench(Path("bench.parquet")), ["bench.parquet"])


def test_benches() -> None:
    write_bench(BENCHES, Path("bench.parquet"))
    check_cells(AppTest.from_function(benches).run(timeout=PATIENCE), number=1)


def corpora() -> None:
    """The script of the page of corpora."""
    from skipviz.app.views.corpus_page import page

    page()


def test_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORPORA, str(tmp_path))
    for name, made in {"mine": made_parts(), "other": made_parts(2)}.items():
        write_corpus(tmp_path / name, made, columns=[{"domain": n % 2} for n in range(12)])
    page = AppTest.from_function(corpora).run(timeout=PATIENCE)
    check_cells(page, number=1)
    page.selectbox("corpus_by").select("domain").run(timeout=PATIENCE)
    check_cells(page, number=1)
    page.session_state["corpus_view"] = "Compare"
    page.run(timeout=PATIENCE)
    page.session_state["corpus_how"] = OTHERS
    page.button("corpus_compare").click().run(timeout=PATIENCE)
    assert not page.exception
    check_cells(page, number=1)


@pytest.mark.slow
def test_an_audit(folder: Path) -> None:
    page = opened_on("audit_page", folder, TEXT)
    asked(page, "audit")
    check_cells(page, number=4)
    page.button_group(key="price").set_value("Free")
    page.button_group(key="map").set_value("Wrong decisions")
    choose_range(page, (2, 6))
    check_cells(page, number=4)


@pytest.mark.slow
def test_attributions(folder: Path) -> None:
    page = opened_on("attribution_page", folder, TEXT[:20])
    page.selectbox(key="method").set_value("Input times gradient")
    page.number_input(key="depth_steps").set_value(2).run(timeout=PATIENCE)
    asked(page, "attribution", "depth", "audit", "correlations")
    check_cells(page, number=4)  # of depth, and of correlations with utilities
    (cell,) = (cell for cell in cells_of(page) if "HTML(" in cell)
    assert result_of(cell, {}).data in [each.proto.body for each in page.get("html")]
    page.button_group(key="against").set_value("Shares over depth").run(timeout=PATIENCE)
    asked(page, "correlations")
    check_cells(page, number=4)


@pytest.mark.slow
def test_a_question(folder: Path) -> None:
    page = opened_on("what_if_page", folder, TEXT)
    page.button_group(key="what if gates").set_value("A budget").run(timeout=PATIENCE)
    asked(page, "text frontier")
    choose_range(page, (2, 6))
    check_cells(page, number=2)


@pytest.mark.slow
def test_robustness(folder: Path) -> None:
    page = opened_on("robustness_page", folder, SENTENCES * 4)
    asked(page, "surface", "context", "dense", "drift")
    check_cells(page, number=len(shown(page)))


@pytest.mark.slow
def test_layers_that_need_the_model(folder: Path) -> None:
    page = opened_on("layers_page", folder, tiny.TEXT * 6)
    for view, name in LAYERS.items():
        page.button_group(key="layers_view").set_value(view).run(timeout=PATIENCE)
        asked(page, f"layers {name}")
        check_cells(page, number=len(shown(page)))
        if view == "Predictions":
            choose_range(page, (2, 60))
            check_cells(page, number=2)
