from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.plots.lenses.own import own_lens
from skipviz.plots.style.palette import CATEGORY_COLOURS


def test_numbers_are_a_scale_from_the_least_to_the_most() -> None:
    lens = own_lens(pl.Series("seconds", [3, None, -1, 2]))
    assert (lens.name, lens.scale, lens.ends) == ("seconds (own)", "sequential", (-1.0, 3.0))
    np.testing.assert_array_equal(lens.values, np.array([3, np.nan, -1, 2], dtype=np.float32))
    exact = own_lens(pl.Series("x", [20260101.25, 0.123456789012]))
    assert exact.values.tolist() == [20260101.25, 0.123456789012]
    short = own_lens(pl.Series("x", [0.1, 2.5], dtype=pl.Float32))
    assert short.values.tolist() == [0.1, 2.5]
    endless = own_lens(pl.Series("x", [1.0, float("inf"), 2.0]))
    assert endless.ends == (1.0, 2.0)
    assert np.isnan(endless.values[1])


def test_numbers_without_extent_or_unknown_are_shown_too() -> None:
    assert own_lens(pl.Series("x", [5.0, 5.0])).ends == (5.0, 10.0)
    assert np.isnan(own_lens(pl.Series("x", [None, None], dtype=pl.Float64)).values).all()


def test_texts_are_categories_and_the_rare_ones_share_a_colour() -> None:
    names = [f"kind {place}" for place in range(15) for _ in range(15 - place)]
    lens = own_lens(pl.Series("kind", names))
    assert lens.scale == "categories"
    assert len(lens.categories) == len(CATEGORY_COLOURS) + 1
    assert lens.categories[-1] == "other"
    yes = own_lens(pl.Series("utility", [True, False, None]))
    assert set(yes.categories) == {"true", "false"}
    assert yes.name == "utility (own)", "no lens of ours is replaced"
