from __future__ import annotations

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

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
