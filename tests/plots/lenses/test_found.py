from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.analysis.tokens.classes import token_classes
from skipviz.errors import TraceError
from skipviz.plots.lenses.found import (
    attribution_lens,
    category_lens,
    class_lens,
    cluster_lens,
    over_dense_lens,
    regret_lens,
    utility_lens,
    what_if_lens,
)
from tests.synthetic import make_trace

TRACE = make_trace(tokens=6)


def cells(column: str) -> pl.DataFrame:
    """Two cells with planted numbers."""
    held = pl.Series("later_margin", [None, None], dtype=pl.Float64)
    return pl.DataFrame({"token": [0, 4], "site": [7, 2], column: [0.25, -1.5]}).with_columns(held)


@pytest.mark.parametrize(("make", "column"), [(utility_lens, "utility"), (regret_lens, "regret")])
def test_cells_stand_where_they_belong_and_the_rest_is_unknown(make: object, column: str) -> None:
    lens = make(TRACE, cells(column))  # type: ignore[operator]
    assert lens.values.shape == (6, TRACE.sites.height)
    assert (lens.values[0, 7], lens.values[4, 2]) == (0.25, -1.5)
    assert np.isnan(lens.values).sum() == lens.values.size - 2


def test_what_skipping_cost_is_the_loss_over_the_dense_model() -> None:
    other = make_trace(tokens=6, rate=0.2)
    dense = over_dense_lens(TRACE, other)
    assert np.isnan(dense.values[-1]), "nothing follows the last token"
    with pytest.raises(TraceError):
        over_dense_lens(TRACE, make_trace(tokens=5))


def test_what_if_is_the_loss_after_minus_the_loss_before() -> None:
    after = skipviz.Trace(
        run=TRACE.run,
        sites=TRACE.sites,
        tokens=TRACE.tokens.with_columns(pl.col("nll") + 0.5),
        matrices=TRACE.matrices,
    )
    answer = skipviz.WhatIf(
        question="q", before=TRACE, trace=after, computed_anew="",
        asked=np.zeros((6, 8), dtype=bool), kl=np.zeros(6),
    )  # fmt: skip
    assert what_if_lens(answer).values[:5] == pytest.approx(0.5, abs=1e-6)


def test_shares_of_tokens() -> None:
    shares = pl.DataFrame({"token": [1, 3], "attribution": [0.2, None]})
    lens = attribution_lens(TRACE, shares, what="the loss after token 3")
    assert lens.values[1] == np.float32(0.2)
    assert np.isnan(lens.values[[0, 2, 3, 4, 5]]).all()
    assert lens.ends == (-0.3, 0.3)


def test_clusters_keep_their_number_and_so_their_colour() -> None:
    tokens = pl.DataFrame({"token": range(6), "cluster": [2, None, 0, 2, 2, 0]})
    lens = cluster_lens(TRACE, tokens)
    assert lens.categories == ("cluster 0", "cluster 1", "cluster 2")
    assert np.isnan(lens.values[1])
    assert lens.values[[0, 2]].tolist() == [2, 0]


def test_classes_are_named() -> None:
    classes = token_classes(TRACE)
    lens = class_lens(classes)
    named = [lens.categories[int(code)] for code in lens.values]
    assert named == classes["kind"].to_list()


def test_of_many_categories_twelve_are_kept_and_the_rest_is_other() -> None:
    words = [word for place, word in enumerate("abcdefghijklmn") for _ in range(20 - place)]
    lens = category_lens("letters", pl.Series([*words, None]))
    assert lens.categories == (*"abcdefghijkl", "other")
    assert lens.values[0] == 0
    assert lens.values[-2] == 12
    assert np.isnan(lens.values[-1])
