from __future__ import annotations

import polars as pl
import pytest

from skipviz.analysis.statistics.multiple_tests import correlation_found, with_q_values


def test_q_values_are_those_of_benjamini_and_hochberg() -> None:
    table = with_q_values(pl.DataFrame({"p": [0.01, None, 0.04, 0.03]}))
    assert table["q"].to_list()[0] == pytest.approx(0.03)
    assert table["q"].to_list()[2:] == [pytest.approx(0.04), pytest.approx(0.04)]
    assert table["q"].is_nan()[1]
    other = with_q_values(pl.DataFrame({"p": [0.5], "p_other": [0.2]}), p="p_other")
    assert other["q"].to_list() == [0.2]
    none = with_q_values(pl.DataFrame({"p": [None]}, schema={"p": pl.Float64}))
    assert none["q"].is_nan().all()


def test_a_coefficient_is_found_where_its_sign_holds() -> None:
    table = pl.DataFrame(
        {
            "r": [0.5, 0.5, 0.5, -0.5, 0.5],
            "r_detrended": [0.4, 0.4, -0.1, -0.1, 0.4],
            "q": [0.05, 0.051, 0.01, 0.01, None],
        }
    )
    assert table.select(found=correlation_found())["found"].to_list() == [
        True, False, False, True, False,
    ]  # fmt: skip
