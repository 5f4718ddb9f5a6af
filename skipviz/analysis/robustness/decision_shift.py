"""How far paths and loss move on average when a text changes, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from skipviz.analysis.statistics.intervals import ANY_SHARE, clustered_margin

MIN_UNITS = 5
"""With fewer stretches of text an interval would be a pretence, and none is given."""
CHANGES = ("moved", "apart", "layers", "loss")
SHIFT_SHARES = ("moved", "apart")
OTHER_CONTEXT = "another context"
"""The kind of rows of sentences that were put behind other words than their own."""


def shift_of_decisions(words: pl.DataFrame) -> pl.DataFrame:
    """Return how far words moved on average, by what was done to the text.

    Parameters
    ----------
    words
        One row an aligned word, as ``skipviz.analysis.tokens.words.word_changes`` has them, with
        ``kind``, what was done; ``touched``, whether the word or the white space
        before it was changed; and ``unit``, the stretch of text that the word is in.

    Returns
    -------
    pl.DataFrame
        One row a kind, in order of appearance, and whether words were touched, those that were
        first: ``kind``, ``touched``, ``words``, ``units``; means of ``moved`` and ``apart``, 0 to
        1, of ``layers``, the change in layers used, and of ``loss``, the change in nats per word,
        after minus before, each with ``_low`` and ``_high``, a 95% interval; null where nothing is
        known, and intervals also with fewer than ``MIN_UNITS`` units.
    """
    changes = words.with_columns(
        layers=pl.col("layers_after") - pl.col("layers_before"),
        loss=pl.col("loss_after") - pl.col("loss_before"),
    )
    rows: list[dict[str, Any]] = []
    for (kind,), part in changes.group_by("kind", maintain_order=True):
        for touched in (True, False):
            chosen = part.filter(pl.col("touched") == touched)
            if chosen.is_empty():
                continue
            row: dict[str, Any] = {"kind": kind, "touched": touched, "words": chosen.height}
            row["units"] = chosen["unit"].n_unique()
            for name in CHANGES:
                known = chosen.drop_nulls(name)
                ends = (name, f"{name}_low", f"{name}_high")
                found = mean_by_unit(known[name].to_numpy(), known["unit"].to_numpy())
                row |= dict(zip(ends, found, strict=True))
            rows.append(row)
    floats = [f"{name}{end}" for name in CHANGES for end in ("", "_low", "_high")]
    schema = {"kind": pl.String, "touched": pl.Boolean, "words": pl.Int64, "units": pl.Int64}
    shares = [f"{name}{end}" for name in SHIFT_SHARES for end in ("_low", "_high")]
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(floats, pl.Float64)).with_columns(
        pl.col([name for name in floats if name not in shares]).fill_nan(None),
        pl.col(shares).fill_nan(None).clip(*ANY_SHARE),
    )


def mean_by_unit(values: npt.NDArray[Any], unit: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Return a mean and its 95% interval, in which a stretch of text counts as one draw.

    Neighbouring words are alike, so that words as draws would flatter the mean.

    Parameters
    ----------
    values
        Figures of words, [words].
    unit
        Which stretch each is in, [words].

    Returns
    -------
    tuple of float
        Mean, low and high. The interval is NaN with fewer than ``MIN_UNITS`` units, and the mean
        too without any values.
    """
    if not len(values):
        return (float("nan"),) * 3
    mean = float(values.mean())
    place = np.unique(unit, return_inverse=True)[1].reshape(-1)
    few = place.max() + 1 < MIN_UNITS
    margin = float("nan") if few else clustered_margin(values.astype(np.float64), place)
    return mean, mean - margin, mean + margin
