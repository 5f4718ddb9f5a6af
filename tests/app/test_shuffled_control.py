from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.evaluation.shuffled import shuffle_decisions
from tests import tiny
from tests.app.pages import PATIENCE, until
from tests.folders import write_gated


def controls(folder: str, texts: list[str]) -> None:
    """The script of a page with the controls alone."""
    import skipviz
    from skipviz.app.components.run_button import jobs
    from skipviz.app.jobs import Request
    from skipviz.app.views.policies.shuffled_control import show_shuffled

    documents = tuple(skipviz.Document(f"doc{i}", text) for i, text in enumerate(texts))
    request = Request(model=folder, documents=documents, budget=0.8)
    show_shuffled(jobs().submit(request).future.result(), request)


@pytest.mark.slow
def test_both_controls_are_on_the_page(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    texts = [tiny.TEXT, tiny.TEXT[20:], tiny.TEXT[40:]]
    page = AppTest.from_function(controls, args=(str(folder), texts)).run(timeout=PATIENCE)
    page.button(key="try shuffled").click()
    until(page, lambda: page.dataframe)
    shown = pl.from_pandas(page.dataframe[0].value)
    documents = [skipviz.Document(f"doc{i}", text) for i, text in enumerate(texts)]
    found = shuffle_decisions(skipviz.load(folder, budget=0.8), documents, seed=0)
    assert shown["by_site"].to_list() == [str(found.by_site), str(found.by_site_cost)]
    assert shown["by_token"].to_list() == [str(found.by_token), str(found.by_token_cost)]
