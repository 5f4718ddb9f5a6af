"""Lenses of a user's own columns."""

from __future__ import annotations

import numpy as np
import polars as pl

from skipviz.plots.lenses.categories import category_lens
from skipviz.plots.lenses.lens import Lens


def own_lens(values: pl.Series) -> Lens:
    """Return a column of a user's own as a lens: a scale of numbers, or categories of text.

    Parameters
    ----------
    values
        One number or one text per token, null where unknown. Of more than twelve texts those beyond
        the most frequent become ``other``.

    Returns
    -------
    Lens
        Under the column's name, marked as the user's own.

    Examples
    --------
    >>> own_lens(pl.Series("grade", ["easy", "hard", "easy"])).categories
    ('easy', 'hard')
    >>> own_lens(pl.Series("seconds", [0.5, None, 2.0])).ends
    (0.5, 2.0)
    """
    name = f"{values.name} (own)"
    if not values.dtype.is_numeric():
        return category_lens(name, values.cast(pl.String).alias("value"))
    if values.dtype == pl.Float32:  # by its digits: 0.1 of 32 bits is another number in 64
        values = values.cast(pl.String)
    numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    known = numbers[np.isfinite(numbers)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return Lens(
        name=name,
        unit="",
        values=numbers,
        scale="sequential",
        ends=(low, high) if low < high else (low, low + max(1.0, abs(low))),
        colours="own",
    )
