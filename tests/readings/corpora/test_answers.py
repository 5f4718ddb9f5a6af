from __future__ import annotations

import polars as pl

from skipviz.readings.corpora.answers import corpora_compared_reading, corpus_rates_reading
from skipviz.readings.tokens.word_lists import KINDS_ARE_ENGLISH


def test_the_site_that_ran_most_and_least_is_named() -> None:
    table = pl.DataFrame(
        {
            "domain": ["law", "press"],
            "label": ["L1.mlp", "L2.mlp"],
            "documents": [8, 1],
            "rate": [0.9, 0.25],
            "low": [0.85, None],
            "high": [0.95, None],
        }
    )
    said = corpus_rates_reading(table, by=["domain"])
    assert said == (
        "L1.mlp ran most often for law: 90.0% (95% interval 85.0% to 95.0%). "
        "L2.mlp ran least often for press: 25.0%. "
        "Intervals are over documents, at most 8 in a group."
    )
    assert KINDS_ARE_ENGLISH not in said
    by_kind = table.rename({"domain": "kind"})
    assert corpus_rates_reading(by_kind, by=["kind"]).endswith(KINDS_ARE_ENGLISH)


def test_a_comparison_says_the_difference_and_what_is_not_known() -> None:
    means = pl.DataFrame(
        {
            "figure": ["layers_used", "nll", "L1.mlp", "L2.mlp"],
            "documents": [9, 0, 9, 9],
            "difference": [-1.5, None, 0.2, 0.0],
            "low": [-2.0, None, 0.1, -0.1],
            "high": [-1.0, None, 0.3, 0.1],
            "q": [0.01, None, 0.01, 0.9],
        }
    )
    assert corpora_compared_reading(means) == (
        "Layers used per token, second less first: -1.500 layers, 95% interval -2.000 to -1.000, "
        "over 9 documents. Loss cannot be compared: for no document with the same tokens do both "
        "have it. "
        "Execution rates differ at 1 of 2 sites after correction for so many tests."
    )


def test_a_single_document_tells_nothing_of_sites() -> None:
    means = pl.DataFrame(
        {
            "figure": ["layers_used", "nll", "L1.mlp"],
            "documents": [1, 1, 1],
            "difference": [-1.5, 0.1, 0.2],
            "low": [None, None, None],
            "high": [None, None, None],
            "q": [None, None, None],
        },
        schema_overrides={"low": pl.Float64, "high": pl.Float64, "q": pl.Float64},
    )
    said = corpora_compared_reading(means)
    assert said.endswith("Whether execution rates differ is not known from a single document.")
    assert "at 0 of" not in said
