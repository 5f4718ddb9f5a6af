from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.analysis.gates.quality import implied_price, judged
from tests import tiny
from tests.app.pages import PATIENCE, page_of_text, until
from tests.folders import write_gated

TEXT = tiny.TEXT[:40]


@pytest.mark.slow
def test_the_page_says_what_was_found_and_sets_the_first_token_apart(
    tmp_path: Path, dense_folder: Path
) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    model = skipviz.load(folder, budget=0.8)
    trace = skipviz.trace(model, TEXT)
    cells = skipviz.audit(model, trace, downstream="react")
    marked = judged(trace, cells, price=implied_price(trace, cells))
    page = AppTest.from_function(page_of_text, args=("audit_page", str(folder), TEXT))
    page.run(timeout=PATIENCE)
    assert trace.budget_missed is not None
    assert "on other texts. The page “Skip paths” offers" in page.warning[0].value
    page.button_group(key="downstream").set_value("Decide again").run(timeout=PATIENCE)
    page.button(key="try audit").click()
    until(page, lambda: page.dataframe)
    said = " ".join(each.value for each in page.markdown)
    assert "; chance 0.50)" in said
    share = marked.filter(token=0)["regret"].sum() / marked["regret"].sum()
    assert ("The first token has " in said) is (share >= 0.05)
    assert "The smallest margin of a later gate is " in said
    tables = [pl.from_pandas(each.value) for each in page.dataframe]
    later, first = (each for each in tables if "smallest later margin" in each.columns)
    wrong = marked.filter(pl.col("regret") > 0).sort("regret", descending=True)
    assert set(first["token"]) == {0}
    assert later["token"].to_list() == wrong.filter(pl.col("token") > 0)["token"].head(30).to_list()
    assert later["decided by rounding"].dtype == pl.Boolean
