"""The range of tokens chosen on the canvas, on the pages."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.token_range import TokenRange
from tests import tiny
from tests.app.pages import PATIENCE, until, until_ended
from tests.folders import write_gated
from tests.synthetic import make_trace

TEXT = tiny.TEXT


def ranged(view: str, folder: str, text: str, ends: tuple[int, int]) -> None:
    """The script of a page on whose canvas a range is chosen."""
    from importlib import import_module

    import skipviz
    from skipviz.app.components.canvas import Selection
    from skipviz.app.components.run_button import PATHS, follow, jobs, traced_now
    from skipviz.app.jobs import Request
    from skipviz.app.state import on_canvas, state

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
        on_canvas(traced_now()[0]).selection = Selection(range=ends)
    import_module(f"skipviz.app.views.{view}").page()


def said(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.info)
    return " ".join(each.value for kind in kinds for each in kind)


@pytest.fixture
def folder(tmp_path: Path, dense_folder: Path) -> str:
    return str(write_gated(tmp_path / "gated", backbone=dense_folder))


def opened(view: str, folder: str, ends: tuple[int, int]) -> AppTest:
    page = AppTest.from_function(ranged, args=(view, folder, TEXT, ends)).run(timeout=PATIENCE)
    assert not page.exception, page.exception[0].message
    return page


@pytest.mark.slow
@pytest.mark.parametrize(
    "view", ["audit_page", "clusters_page", "layers_page", "attribution_page", "cost_page"]
)
def test_a_page_says_which_tokens_it_is_about_and_takes_all_back(view: str, folder: str) -> None:
    page = opened(view, folder, (5, 5))  # the least there can be
    if view == "audit_page":
        page.button(key="try audit").click()
        until(page, lambda: page.metric)
    if view == "clusters_page":
        page.button(key="try clusters").click().run(timeout=PATIENCE)
    until_ended(page)
    name = "Token 5 " + ("is chosen" if view == "attribution_page" else "of ")
    assert name in said(page)
    page.button(key="all tokens").click().run(timeout=PATIENCE)
    until_ended(page)
    assert name not in said(page)
    assert not any(button.key == "all tokens" for button in page.button)


@pytest.mark.slow
def test_figures_are_of_the_tokens_of_the_range(folder: str) -> None:
    trace = skipviz.trace(skipviz.load(folder, budget=0.8), TEXT)
    page = opened("paths_page", folder, (3, 20))
    shown = {metric.label: metric.value for metric in page.metric}
    part = trace.tokens.slice(3, 18)
    assert shown["Tokens"] == "18"
    assert f"Tokens 3 to 20 of {len(trace)} only." in said(page)
    assert shown["Loss"] == f"{part['nll'].cast(pl.Float64).mean():.2f} nats"
    assert shown["Layers used, mean"].startswith(f"{part['layers_used'].mean():.1f} of ")
    assert "thresholds were set for" not in said(page), "a part need not come to the budget"


@pytest.mark.slow
def test_the_audit_of_the_last_token_says_that_there_is_none(folder: str) -> None:
    trace = skipviz.trace(skipviz.load(folder, budget=0.8), TEXT)
    page = opened("audit_page", folder, (len(trace) - 1, len(trace) - 1))
    page.button(key="try audit").click()
    until(page, lambda: "No decision was audited here" in said(page))


def test_rows_and_tokens_are_those_of_the_range() -> None:
    trace = make_trace(tokens=30)
    chosen = TokenRange((3, 20))
    part = chosen.part(trace)
    assert part.tokens["token"].to_list() == list(range(3, 21))
    assert (part.matrix("score") == trace.matrix("score")[3:21]).all()
    table = pl.DataFrame({"token": [1, 3, 9, 20, 21]})
    assert chosen.rows(table)["token"].to_list() == [3, 9, 20]
    assert TokenRange().rows(table) is table
    assert TokenRange().part(trace) is trace
    assert (str(chosen), str(TokenRange())) == ("tokens 3 to 20", "")
