"""How sure a mean is whose values come in groups that are alike within."""

from __future__ import annotations

import numpy as np
from scipy import stats

from skipviz.arrays import Floats, Ints

Bounds = tuple[float, float]
"""The least and the largest value that a quantity can have."""
ANY_SHARE: Bounds = (0.0, 1.0)
SHARE_CHANGE: Bounds = (-1.0, 1.0)
"""Of the difference of two shares."""
NOT_NEGATIVE: Bounds = (0.0, np.inf)
UNBOUNDED: Bounds = (-np.inf, np.inf)
BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(
        ("layers_used", "exit_depth", "surprisal", "nll", "entropy", "context", "kl"), NOT_NEGATIVE
    ),
    "top1": ANY_SHARE,
}
"""Of the means of columns; differences of them have none."""


def interval_ends(
    mean: Floats | float, margin: Floats | float, bounds: Bounds | tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Return the ends of intervals, which keep to what the quantity can be.

    Parameters
    ----------
    mean, margin
        Means, and half the widths of their intervals, NaN where there is none; of any one shape.
    bounds
        Of the quantity, or of each.
    """
    low, high = (np.asarray(np.clip(mean + sign * margin, *bounds)) for sign in (-1, 1))
    return low, high


def clustered_error(values: Floats, groups: Ints) -> float:
    """Return the standard error of the mean of values that are independent only between groups.

    By the spread of what groups add to it (Liang and Zeger, "Longitudinal data analysis using
    generalized linear models", 1986).

    Parameters
    ----------
    values
        At least one, of shape [n].
    groups
        The group of each, of shape [n].

    Returns
    -------
    float
        NaN where there is a single group.
    """
    _, group = np.unique(groups, return_inverse=True)
    off = np.bincount(group, weights=values - values.mean())
    if len(off) == 1:
        return float("nan")
    # Few groups spread less around their own mean than around the true one.
    few = len(off) / (len(off) - 1)
    return float(np.sqrt(few * (off**2).sum()) / len(values))


def clustered_margin(values: Floats, groups: Ints) -> float:
    """Return half the width of the 95% interval of the mean, by Student's t.

    Parameters
    ----------
    values, groups
        As of ``clustered_error``.

    Returns
    -------
    float
        NaN where there is a single group.
    """
    return student_margin(clustered_error(values, groups), len(np.unique(groups)))


def student_margin(error: float, groups: int) -> float:
    """Return half the width of the 95% interval with a standard error told by so many groups."""
    return float(stats.t.ppf(0.975, groups - 1) * error) if groups > 1 else float("nan")
