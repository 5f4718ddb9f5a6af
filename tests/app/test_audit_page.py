from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.analysis.gates.quality import implied_price, judged
from tests import tiny
from tests.folders import write_gated

PATIENCE = 60
TEXT = tiny.TEXT[:40]


def audit_of(folder: str, text: str) -> None:
    """The script of the audit's page after a text was traced."""
    import skipviz
    from skipviz.app.components.run_button import PATHS, follow, jobs
    from skipviz.app.jobs import Request
    from skipviz.app.state import state
    from skipviz.app.views.audit_page import page

    request = Request(model=folder, documents=(skipviz.Document("mine", text),), budget=0.8)
    if PATHS not in state().runs:
        follow(PATHS, lambda: jobs().submit(request), asked=request.key, request=request)
        state().runs[PATHS].job.future.result()
    page()


@pytest.mark.slow
def test_the_page_says_what_was_found_and_sets_the_first_token_apart(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    model = skipviz.load(folder, budget=0.8)
    trace = skipviz.trace(model, TEXT)
    cells = skipviz.audit(model, trace, downstream="react")
    marked = judged(trace, cells, price=implied_price(trace, cells))
    page = AppTest.from_function(audit_of, args=(str(folder), TEXT)).run(timeout=PATIENCE)
    assert trace.budget_missed is not None
    assert "on other texts. The page “Skip paths” offers" in page.warning[0].value
    page.button_group(key="downstream").set_value("Decide again").run(timeout=PATIENCE)
    page.button(key="try audit").click()
    until = time.monotonic() + PATIENCE
    while not page.dataframe and time.monotonic() < until:
        page.run(timeout=PATIENCE)
        time.sleep(0.1)
    assert not page.exception
    said = " ".join(each.value for each in page.markdown)
    assert "The AUROC of the scores, " in said
    share = marked.filter(token=0)["regret"].sum() / marked["regret"].sum()
    assert ("The first token has " in said) is (share >= 0.05)
    assert "The smallest margin of a later gate is " in said
    tables = [pl.from_pandas(each.value) for each in page.dataframe]
    later, first = (each for each in tables if "smallest later margin" in each.columns)
    wrong = marked.filter(pl.col("regret") > 0).sort("regret", descending=True)
    assert set(first["token"]) == {0}
    assert later["token"].to_list() == wrong.filter(pl.col("token") > 0)["token"].head(30).to_list()
    assert later["decided by rounding"].dtype == pl.Boolean
