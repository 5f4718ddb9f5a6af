from __future__ import annotations

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

import skipviz
from skipviz.app.jobs import _under
from skipviz.app.views.policies_page import _asked_for
from skipviz.folders import samples_folder


def policies() -> None:
    from skipviz.app.views.policies_page import page

    page()


@pytest.mark.slow
def test_the_table_compares_at_equal_budget_or_says_that_it_does_not() -> None:
    page = AppTest.from_function(policies).run(timeout=60)
    assert not page.exception
    shown = pl.from_pandas(page.dataframe[0].value)
    table = pl.read_csv(samples_folder() / "frontier.csv")
    assert shown.height == table.height
    for words, row in zip(shown["at_asked"], table.iter_rows(named=True), strict=True):
        if row["budget"] is None:
            assert words == ""
        elif row["gap_at_asked"] is None:
            assert words == "not at equal budget"
        else:
            assert words.startswith(f"{row['gap_at_asked']:.3f} [")
    assert shown["at_asked"].str.contains("not at equal").any()
    assert not table["missed"].any()
    assert not page.warning


@pytest.mark.slow
@pytest.mark.model
def test_every_policy_of_the_table_can_be_run() -> None:
    table = pl.read_csv(samples_folder() / "frontier.csv")
    documents = (skipviz.Document("mine", "text"),)
    for (name,), rows in table.group_by("model", maintain_order=True):
        model = skipviz.load(str(name))
        for row in rows.iter_rows(named=True):
            handle = _under(model, _asked_for(row, documents))
            for asked in ("policy", "budget", "limit"):
                assert getattr(handle, asked) == row[asked], row
