from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.plots.comparison.lenses import COMPARISON_LENSES
from tests import tiny
from tests.app.pages import PATIENCE, until
from tests.folders import write_gated


def compared(folder: str, text: str, others: list[str | float]) -> None:
    """The script of the page after a text was traced, with other runs of the visitor."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.frame.recent_runs import recent_runs
    from skipviz.app.jobs import Request
    from skipviz.app.sessions import this_visitor
    from skipviz.app.state import state
    from skipviz.app.views.compare_page import page

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    if PATHS not in state().runs:
        recent_runs.clear()
        for other in [request.budget, *others]:
            budget = other if isinstance(other, float) else 0.8
            words = other if isinstance(other, str) else text
            document = skipviz.Document("mine", words)
            added = Request(model=folder, documents=(document,), budget=budget)
            recent_runs().add(this_visitor(), added)
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    page()


def said(page: AppTest) -> str:
    return " ".join(
        each.value for kind in (page.markdown, page.caption, page.info) for each in kind
    )


@pytest.mark.slow
def test_two_budgets_of_a_text_are_compared(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(compared, args=(str(folder), tiny.TEXT, [0.6]))
    page.run(timeout=PATIENCE)
    until(page, lambda: "predict" in said(page))
    assert "decisions at 8 shared sites" in said(page)
    own = skipviz.trace(skipviz.load(folder, budget=0.8), tiny.TEXT)
    other = skipviz.trace(skipviz.load(folder, budget=0.6), tiny.TEXT)
    found = skipviz.compare_traces(own, other)
    changed = int(found.pieces["changed"].sum())
    assert f"{changed:,} of " in said(page)
    shown = page.dataframe[0].value
    assert shown["figure"].tolist() == found.totals["figure"].to_list()


@pytest.mark.slow
def test_another_text_is_compared_by_totals(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(compared, args=(str(folder), tiny.TEXT, ["The lazy dog sleeps."]))
    page.run(timeout=PATIENCE)
    until(page, lambda: "These are two texts" in said(page))
    assert len(page.dataframe) == 2  # totals, and the sites that both have


@pytest.mark.slow
def test_another_text_takes_the_lenses_of_the_comparison_before(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    others = ["The lazy dog sleeps.", 0.6]
    page = AppTest.from_function(compared, args=(str(folder), tiny.TEXT, others))
    page.run(timeout=PATIENCE)
    until(page, lambda: "predict" in said(page))

    def lenses() -> list[str]:
        (on,) = page.session_state["skipviz"].canvases.values()
        return list(on.lenses)

    until(page, lambda: lenses() == list(COMPARISON_LENSES))
    page.selectbox[0].select_index(1).run(timeout=PATIENCE)
    until(page, lambda: "These are two texts" in said(page))
    assert lenses() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([0.6, "The lazy dog sleeps."], 0.6),  # the latest is another text
        (["It rains.", "The lazy dog sleeps."], "The lazy dog sleeps."),
    ],
)
def test_the_latest_run_of_the_same_text_is_compared_at_first(
    others: list[str | float], chosen: str | float, tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(compared, args=(str(folder), tiny.TEXT, others))
    page.run(timeout=PATIENCE)
    second = page.session_state["skipviz"].runs["compared with"].request
    assert chosen in (second.budget, second.documents[0].text)
    assert len(page.selectbox[0].options) == 3  # with the sample


@pytest.mark.slow
def test_one_run_is_compared_with_the_sample_without_a_run_of_that(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    page = AppTest.from_function(compared, args=(str(folder), tiny.TEXT, []))
    page.run(timeout=PATIENCE)
    (choice,) = page.selectbox
    assert len(choice.options) == 1
    assert choice.options[0].startswith("prose.txt")
    until(page, lambda: "These are two texts" in said(page))
