"""How sure a mean is whose values come in groups that are alike within."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from skipviz.analysis.statistics.correlation import BLOCK, tokens_by_text

MIN_TEXTS_AS_GROUPS = 10
"""Texts from which on whole texts are groups, as they differ as wholes."""


def dependent_groups(documents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return groups of tokens such that tokens of different ones are independent, or nearly so.

    Parameters
    ----------
    documents
        The text of each token, in reading order within each, of shape [n].

    Returns
    -------
    ndarray
        The group of each token, of shape [n]: its text where there are ``MIN_TEXTS_AS_GROUPS``,
        else its block of ``BLOCK`` tokens of the text.
    """
    texts = tokens_by_text(documents)
    size = len(documents) if len(texts) >= MIN_TEXTS_AS_GROUPS else BLOCK
    groups, count = np.empty(len(documents), dtype=np.int64), 0
    for tokens in texts:
        groups[tokens] = count + np.arange(len(tokens)) // size
        count += -(-len(tokens) // size)
    return groups


def clustered_error(values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> float:
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


def clustered_margin(values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> float:
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
