"""Lenses whose values are names."""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.plots.lenses.lens import OTHER, Lens
from skipviz.plots.style.palette import CATEGORY_COLOURS


def category_lens(name: str, values: pl.Series, *, order: list[str] | None = None) -> Lens:
    """Return names as categories; null is unknown.

    Parameters
    ----------
    name
        What the categories are.
    values
        One name per token.
    order
        The categories in order; the most frequent first if None. Those beyond the twelfth
        become ``other``.
    """
    if order is None:
        counts = values.drop_nulls().value_counts(name="count")
        counts = counts.sort(["count", values.name], descending=[True, False])
        order = counts[values.name].to_list()
    kept = order[: len(CATEGORY_COLOURS)]
    names = (*kept, *([OTHER] if len(order) > len(kept) else []))
    code = {each: float(min(place, len(kept))) for place, each in enumerate(order)}
    codes = [float("nan") if each is None else code[each] for each in values]
    return Lens(
        name=name,
        unit="",
        values=np.array(codes, dtype=np.float32),
        scale="categories",
        ends=(0.0, float(len(CATEGORY_COLOURS))),
        categories=names or ("none",),
    )
