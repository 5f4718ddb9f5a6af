"""Whether two figures of tokens go together, with p-values that neighbouring tokens do not flatter.

P-values come from permutations of blocks of neighbours, and intervals from a bootstrap over blocks,
as ``blocks`` makes them.

Texts differ as wholes, in both figures at once, and a few of them cannot tell whether that goes
together. So of several texts it is asked what holds within them: figures are taken less their mean
in the text, and blocks change places within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg, stats

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS, Resampling
from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError

CorrelationMethod = Literal["pearson", "spearman", "kendall"]
CORRELATION_METHODS: tuple[CorrelationMethod, ...] = ("pearson", "spearman", "kendall")
MIN_BLOCKS_FOR_INTERVAL = 8
"""Draws of fewer blocks spread far less than chance does, and no interval is made of them."""
PERMUTATIONS = 999


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How far two figures go together.

    Attributes
    ----------
    method
        ``pearson``, ``spearman`` or ``kendall``.
    tokens
        How many pairs.
    r
        The coefficient, -1 to 1; NaN where a figure is the same for all tokens.
    low, high
        Its 95% interval, by a bootstrap over blocks.
    p
        Share of block permutations, the data's own order among them, whose coefficient is as far
        from 0.
    """

    method: CorrelationMethod
    tokens: int
    r: float
    low: float
    high: float
    p: float


def block_correlation(
    x: Floats,
    y: Floats,
    *,
    method: CorrelationMethod = "spearman",
    covariates: Floats | None = None,
    documents: Ints | None = None,
    block: int = BLOCK_TOKENS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Correlation:
    """Return how far two figures of the same tokens go together.

    Parameters
    ----------
    x, y
        A number per token, in reading order, of shape [tokens].
    method
        The coefficient.
    covariates
        Figures to control for, [tokens, figures]: the coefficient is that of what a linear
        regression on them leaves of both, of their ranks unless the method is ``pearson``.
    documents
        The text of each token, [tokens]; None if it is one. Of several, the coefficient is that
        within texts: of figures, or their ranks, less their mean in the text.
    block
        Neighbouring tokens that stay together; 1 takes tokens for independent. A shorter text
        stays together whole.
    permutations
        How many; also of the bootstrap.
    seed
        Seed of both.

    Raises
    ------
    ValueError
        If the figures differ in length, are fewer than three, or are no finite numbers, or the
        method or the block does not exist.
    """
    resampling = Resampling.of(
        len(x), documents=documents, block=block, permutations=permutations, seed=seed
    )
    found = coefficients(x, y, method=method, covariates=covariates, resampling=resampling)
    return correlation_of(found, method=method, tokens=len(x))


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A coefficient of the data, of its permutations and of its bootstrap.

    Attributes
    ----------
    own
        The data's, -1 to 1; NaN where a figure is the same for all tokens.
    shuffled, drawn
        Those of each permutation and each draw, [permutations].
    """

    own: float
    shuffled: Floats
    drawn: Floats

    @classmethod
    def mean(cls, several: Sequence[Coefficients]) -> Coefficients:
        """Return the mean of coefficients of the same tokens under the same resampling.

        Those that are NaN for the data are left out; if all are, so is the mean.
        """
        kept = [each for each in several if np.isfinite(each.own)]
        if not kept:
            return cls(float("nan"), np.array([np.nan]), np.array([np.nan]))
        drawn = np.stack([each.drawn for each in kept])
        # A draw may happen to hold one value alone; where none is known there is no interval.
        drawn = np.nan_to_num(drawn) if np.isfinite(drawn).any() else drawn
        shuffled = np.stack([each.shuffled for each in kept])
        own = float(np.mean([each.own for each in kept]))
        return cls(own, shuffled.mean(axis=0), drawn.mean(axis=0))


def coefficients(
    x: Floats,
    y: Floats,
    *,
    method: CorrelationMethod,
    covariates: Floats | None = None,
    resampling: Resampling,
) -> Coefficients:
    """Return the coefficient of two figures, of the data and of its permutations and draws.

    Parameters
    ----------
    x, y, method, covariates
        As for ``block_correlation``.
    resampling
        Of as many tokens.
    """
    _check(x, y, covariates, method)
    document = resampling.documents
    known = _basis(covariates, method, document)
    left, right = (
        _left_over(_less_means(_ranked(each, method), document), known) for each in (x, y)
    )
    own = float(_coefficients(left[None], right[None], method)[0])
    if not np.isfinite(own):
        nan = np.full(len(resampling.orders), np.nan)
        return Coefficients(own, nan, nan)
    draws = resampling.draws
    # What was taken out comes back in part when tokens change places, and would make the
    # permuted coefficients too small (Freedman and Lane, "A nonstochastic interpretation of
    # reported significance levels", 1983).
    shuffled = _left_over(left[resampling.orders], known)
    return Coefficients(
        own,
        _coefficients(shuffled, right[None], method),
        _coefficients(left[draws], right[draws], method)
        if resampling.blocks >= MIN_BLOCKS_FOR_INTERVAL
        else np.full(len(draws), np.nan),
    )


def correlation_of(found: Coefficients, *, method: CorrelationMethod, tokens: int) -> Correlation:
    """Return what coefficients say: the interval and the p-value."""
    if not np.isfinite(found.own):
        nan = float("nan")
        return Correlation(method=method, tokens=tokens, r=nan, low=nan, high=nan, p=nan)
    # Ties with the data's own coefficient count, up to rounding.
    extreme = (np.abs(found.shuffled) >= abs(found.own) - 1e-12).sum()
    known = found.drawn[np.isfinite(found.drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Correlation(
        method=method,
        tokens=tokens,
        r=found.own,
        low=float(low),
        high=float(high),
        p=float((extreme + 1) / (len(found.shuffled) + 1)),
    )


def _coefficients(x: Floats, y: Floats, method: CorrelationMethod) -> Floats:
    """Return the coefficient of each row of x with the row of y, or with its only one."""
    if method == "kendall":
        pairs = zip(x, np.broadcast_to(y, x.shape), strict=True)
        return np.array([stats.kendalltau(*pair).statistic for pair in pairs])
    # Ranks were taken before: Spearman's is Pearson's coefficient of them.
    x, y = (each - each.mean(axis=1, keepdims=True) for each in (x, y))
    spread = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(spread > 1e-12, (x * y).sum(axis=1) / spread, np.nan)
    return found


def _ranked(values: Floats, method: CorrelationMethod) -> Floats:
    """Return figures, or their ranks where the method takes them."""
    ranked = values if method == "pearson" else stats.rankdata(values, axis=0)
    return np.asarray(ranked, dtype=np.float64)


def _less_means(values: Floats, document: Ints | None) -> Floats:
    """Return figures less their mean in the text, [tokens, ...], or as they are if it is one."""
    if document is None:
        return values
    total = np.zeros((document.max() + 1, *values.shape[1:]))
    np.add.at(total, document, values)
    count = np.bincount(document).reshape(-1, *[1] * (values.ndim - 1))
    return _unrounded(values - (total / count)[document], values, axis=0)


def _unrounded(rest: Floats, values: Floats, *, axis: int) -> Floats:
    """Return what is left of figures, 0 where that is no more than rounding."""
    scale = np.maximum(values.std(axis=axis, keepdims=True), 1e-300)
    return np.where(np.abs(rest) < 1e-9 * scale, 0.0, rest)


def _basis(
    covariates: Floats | None, method: CorrelationMethod, document: Ints | None
) -> Floats | None:
    """Return orthonormal columns that span a constant and the covariates, [tokens, columns]."""
    if covariates is None:
        return None
    design = np.column_stack([np.ones(len(covariates)), _ranked(covariates, method)])
    found: Floats = linalg.orth(_less_means(design, document))
    return found


def _left_over(values: Floats, basis: Floats | None) -> Floats:
    """Return what a linear regression on a basis leaves of figures, [..., tokens]."""
    if basis is None:
        return values
    rest: Floats = values - (values @ basis) @ basis.T
    return _unrounded(rest, values, axis=-1)


def _check(x: Floats, y: Floats, covariates: Floats | None, method: str) -> None:
    if method not in CORRELATION_METHODS:
        raise InputError(f"method={method!r} is not one of {', '.join(CORRELATION_METHODS)}.")
    if len(x) != len(y) or (covariates is not None and len(covariates) != len(x)):
        raise InputError(
            f"{len(x)} and {len(y)} figures cannot be paired"
            + ("" if covariates is None else f" with {len(covariates)} rows of covariates")
            + "; give one of each for every token."
        )
    whole = [x, y] if covariates is None else [x, y, covariates]
    if not all(np.isfinite(each).all() for each in whole):
        raise InputError("Some figures are missing or infinite; leave those tokens out.")
