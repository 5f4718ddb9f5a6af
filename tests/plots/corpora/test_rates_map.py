from __future__ import annotations

import polars as pl

from skipviz.plots.corpora.rates_map import MOST_GROUPS, corpus_rate_map

TABLE = pl.DataFrame(
    {
        "domain": ["<b>law</b>", "<b>law</b>", None, None],
        "label": ["L1.attn", "L1.mlp"] * 2,
        "documents": [3, 3, 1, 1],
        "tokens": [300, 300, 50, 50],
        "rate": [0.2, 0.4, 0.6, 0.8],
        "low": [0.1, 0.3, None, None],
        "high": [0.3, 0.5, None, None],
    }
)


def test_a_row_for_each_group_and_its_text_is_text() -> None:
    figure = corpus_rate_map(TABLE, by=["domain"], source="mine <i>")
    (cells,) = figure.data
    assert list(cells.z) == [0.2, 0.4, 0.6, 0.8]
    assert "&lt;b&gt;law&lt;/b&gt;" in cells.y[0]
    assert "unknown" in cells.y[2]
    assert cells.customdata[0][0] == "0.100 to 0.300"
    assert cells.customdata[2][0] == "unknown"
    assert list(figure.layout.yaxis.categoryarray) == [cells.y[2], cells.y[0]]
    assert "<i>" not in figure.layout.title.subtitle.text


def test_all_tokens_are_one_row_and_many_groups_the_largest() -> None:
    assert "all tokens" in corpus_rate_map(TABLE.head(2), by=[], source="x").data[0].y[0]
    many = pl.DataFrame(
        {
            "n": range(50),
            "label": ["L1.mlp"] * 50,
            "documents": [2] * 50,
            "tokens": range(1, 51),
            "rate": [0.5] * 50,
            "low": [0.4] * 50,
            "high": [0.6] * 50,
        }
    )
    figure = corpus_rate_map(many, by=["n"], source="x")
    assert "40 largest of 50<br>groups" in figure.layout.title.text
    drawn = figure.data[0]
    assert len(set(drawn.y)) == MOST_GROUPS
    assert "49" in drawn.y[-1]


def test_groups_whose_names_begin_alike_have_rows_of_their_own() -> None:
    names = ["a" * 60 + "1", "a" * 60 + "2", "unknown", None]
    table = pl.DataFrame(
        {
            "group": names,
            "label": ["L1.mlp"] * 4,
            "documents": [2] * 4,
            "tokens": [9] * 4,
            "rate": [0.1, 0.2, 0.3, 0.4],
            "low": [0.0] * 4,
            "high": [1.0] * 4,
        }
    )
    (cells,) = corpus_rate_map(table, by=["group"], source="x").data
    assert len(set(cells.y)) == 4
    assert list(cells.z) == [0.1, 0.2, 0.3, 0.4]
