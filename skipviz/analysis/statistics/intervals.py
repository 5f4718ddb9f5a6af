"""How sure a mean is whose values come in groups that are alike within."""

from __future__ import annotations

import numpy as np
from scipy import stats

from skipviz.arrays import Floats, Ints


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
