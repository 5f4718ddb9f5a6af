"""Whether two figures of tokens go together, with p-values that neighbouring tokens do not flatter.

Texts differ as wholes, in both figures at once, and a few of them cannot tell whether that goes
together. So of several texts it is asked what holds within them: figures are taken less their mean
in the text.

Figures also drift along a text, and any two that do go together. So p-values are of what is left
without what changes slowly, as ``trends`` takes it out: the waves of one figure get random signs,
which keeps how alike its neighbours are and loses what it has to do with the other. Where drifts
move the coefficient, there is no interval. Else it is by a jackknife over blocks of neighbours
(Kunsch, "The jackknife and the bootstrap for general stationary observations", 1989), and Student's
t. How often both hold is measured by ``benchmarks/correlation.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg, stats

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.analysis.statistics.resampling import Resampling
from skipviz.analysis.statistics.trends import unrounded, waves
from skipviz.arrays import Floats, Ints
from skipviz.errors import InputError

CorrelationMethod = Literal["pearson", "spearman", "kendall"]
CORRELATION_METHODS: tuple[CorrelationMethod, ...] = ("pearson", "spearman", "kendall")
MIN_BLOCKS_FOR_INTERVAL = 8
"""Fewer blocks spread far less than chance does, and no interval is made of them."""
MOST_MOVED = 0.5
"""Standard errors by which slow changes may move a coefficient that has an interval."""
MIN_WEIGHT = 8.0
"""``Coefficients.weight``, at least, for an interval.

Of a decision so rare that few texts have so many, those that do overstate a coefficient that is not
0, so their intervals reach further towards 0 (``_left_without_luck``). How often they cover:
``benchmarks/correlation.py --seed 1000000 --draws 2500 --only "rate 0.98" --tokens 256``.
"""
MIN_SHARED, MIN_SHARED_FOR_P = 3.0, 1 / 3
"""``Coefficients.shared``, at least, for an interval and for a p-value."""
HEAVIEST = 5.0
"""Kurtosis of a figure, at most, for an interval of Pearson's coefficient."""
PERMUTATIONS = 999

Withheld = Literal["blocks", "trends", "weight"]
"""Why there is no interval: too few blocks, slow changes that move the coefficient, or too few
tokens that it rests on."""


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
        Its 95% interval, by a jackknife over blocks; NaN where it would not hold.
    withheld
        Why there is no interval; None if there is one, or no coefficient.
    r_detrended
        The coefficient without what changes slowly along a text, -1 to 1, of ranks unless the
        method is ``pearson``; NaN where nothing else is left.
    p
        Of ``r_detrended``: share of random signs of waves, the data's own among them, with which it
        is as far from 0. NaN also where both figures rest on so few tokens that these hardly meet.
    """

    method: CorrelationMethod
    tokens: int
    r: float
    low: float
    high: float
    withheld: Withheld | None
    r_detrended: float
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
        Neighbouring tokens that the interval keeps together; 1 takes tokens for independent. A
        shorter text stays together whole.
    permutations
        How many random signs the p-value is of.
    seed
        Seed of them.

    Raises
    ------
    ValueError
        If the figures differ in length, are fewer than three, or are no finite numbers, or the
        method or the block does not exist.
    """
    resampling = Resampling.of(
        len(x), documents=documents, block=block, permutations=permutations, seed=seed
    )
    _check(x, y, covariates)
    controls = Controls.of(covariates, method=method, resampling=resampling)
    found = coefficients(x, y, method=method, controls=controls, resampling=resampling)
    return correlation_of(found, method=method, resampling=resampling)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A coefficient of the data, and what its interval and its p-value are made of.

    Attributes
    ----------
    own
        The data's, -1 to 1; NaN where a figure is the same for all tokens.
    moved
        How far slow changes move it: ``own`` less ``detrended``, both of ranks unless the method is
        ``pearson``.
    detrended
        That of waves.
    signed
        That of waves with random signs, [permutations].
    left_out
        ``own`` without each part of the texts, [parts]; none of fewer than
        ``MIN_BLOCKS_FOR_INTERVAL``.
    weight
        Tokens that the spread of either figure rests on, as its kurtosis tells: of a decision about
        as many as are decided the rarer way. Where they are few no interval holds. 0 where the
        method is ``pearson`` and a figure has tails so heavy that a sample does not tell them.
    shared
        Tokens that the spread of both figures rests on if they have nothing to do with each other.
    """

    own: float
    moved: float
    detrended: float
    signed: Floats
    left_out: Floats
    weight: float
    shared: float

    @classmethod
    def mean(cls, several: Sequence[Coefficients]) -> Coefficients:
        """Return the mean of coefficients of the same tokens under the same resampling.

        Those that are NaN for the data are left out; if all are, so is the mean.
        """
        kept = [each for each in several if np.isfinite(each.own)]
        if not kept:
            return several[0]
        tested = [each for each in kept if np.isfinite(each.detrended)] or kept[:1]
        return cls(
            own=float(np.mean([each.own for each in kept])),
            moved=float(np.mean([each.moved for each in kept])),
            detrended=float(np.mean([each.detrended for each in tested])),
            signed=np.mean([each.signed for each in tested], axis=0),
            left_out=np.mean([each.left_out for each in kept], axis=0),
            weight=min(each.weight for each in kept),
            shared=min(each.shared for each in kept),
        )


@dataclass(frozen=True, eq=False)
class Controls:
    """What is taken out of figures before they are correlated, as orthonormal columns.

    Attributes
    ----------
    of_tokens
        Spans the covariates and a constant, [tokens, columns]; None if there are none.
    of_waves
        Spans the waves of the covariates, [waves, columns].
    of_others
        As ``of_tokens``, for the tokens outside each part, in turn; empty where there are fewer
        than ``MIN_BLOCKS_FOR_INTERVAL`` parts.
    """

    of_tokens: Floats | None
    of_waves: Floats
    of_others: list[Floats | None]

    @classmethod
    def of(
        cls, covariates: Floats | None, *, method: CorrelationMethod, resampling: Resampling
    ) -> Controls:
        """Return them for covariates, [tokens, figures], or none.

        Raises
        ------
        ValueError
            If there is no such method.
        """
        if method not in CORRELATION_METHODS:
            raise InputError(f"method={method!r} is not one of {', '.join(CORRELATION_METHODS)}.")
        document, part = resampling.document, resampling.part
        parts = int(part.max()) + 1
        others = [part != each for each in range(parts if parts >= MIN_BLOCKS_FOR_INTERVAL else 0)]
        waves_there = resampling.signs.shape[1]
        if covariates is None:
            return cls(None, np.zeros((waves_there, 0)), [None] * len(others))
        return cls(
            _basis(covariates, method, document),
            linalg.orth(waves(_ranked(covariates, method), resampling.texts))
            if waves_there
            else np.zeros((0, 0)),
            [_basis(covariates[each], method, document[each]) for each in others],
        )


def coefficients(
    x: Floats,
    y: Floats,
    *,
    method: CorrelationMethod,
    controls: Controls,
    resampling: Resampling,
) -> Coefficients:
    """Return the coefficient of two figures, and what its interval and p-value are made of.

    Parameters
    ----------
    x, y, method
        As for ``block_correlation``.
    controls
        Of the same method and resampling.
    resampling
        Of as many tokens.
    """
    document, part = resampling.document, resampling.part
    left, right = _compared(x, y, controls.of_tokens, method, document)
    own = _coefficient(left, right, method)
    detrended, signed = _of_waves(
        _ranked(x, method), _ranked(y, method), controls.of_waves, resampling
    )
    left_out = [
        _coefficient(*_compared(x[others], y[others], basis, method, document[others]), method)
        for others, basis in ((part != each, b) for each, b in enumerate(controls.of_others))
    ]
    weights = _weight(left), _weight(right)
    heavy = method == "pearson" and min(weights) * HEAVIEST < len(left)
    return Coefficients(
        own=own,
        moved=_coefficient(left, right, "pearson") - detrended,
        detrended=detrended,
        signed=signed,
        left_out=np.array(left_out),
        weight=0.0 if heavy else min(weights),
        shared=weights[0] * weights[1] / len(left),
    )


def correlation_of(
    found: Coefficients, *, method: CorrelationMethod, resampling: Resampling
) -> Correlation:
    """Return what coefficients say: the interval and the p-value.

    Parameters
    ----------
    found
        What ``coefficients`` returned, or a mean of it.
    method
        The coefficient.
    resampling
        What it was made with.
    """
    low, high, withheld = _interval(found, np.bincount(resampling.part))
    p = float("nan")
    if np.isfinite(found.detrended) and found.shared >= MIN_SHARED_FOR_P:
        # Ties with the data's own coefficient count, up to rounding.
        extreme = (np.abs(found.signed) >= abs(found.detrended) - 1e-12).sum()
        p = float((extreme + 1) / (len(found.signed) + 1))
    return Correlation(
        method=method,
        tokens=len(resampling.part),
        r=found.own,
        low=low,
        high=high,
        withheld=withheld,
        r_detrended=found.detrended,
        p=p,
    )


def _interval(found: Coefficients, sizes: Ints) -> tuple[float, float, Withheld | None]:
    """Return the 95% interval, or why there is none.

    By the jackknife over parts of unequal sizes (Busing, Meijer and van der Leeden, "Delete-m
    jackknife for unequal m", 1999), on the scale on which coefficients spread evenly.
    """
    nan = float("nan")
    if not np.isfinite(found.own):
        return nan, nan, None
    if not len(found.left_out):
        return nan, nan, "blocks"
    few = found.weight < MIN_WEIGHT or found.shared < MIN_SHARED
    if few or np.isnan(found.left_out).any():
        return nan, nan, "weight"
    own, left_out = (
        np.arctanh(np.clip(each, -1 + 1e-9, 1 - 1e-9)) for each in (found.own, found.left_out)
    )
    share = sizes.sum() / sizes
    pseudo = share * own - (share - 1) * left_out
    error = np.sqrt(np.mean((pseudo - (pseudo / share).sum()) ** 2 / (share - 1)))
    # NaN where nothing but slow changes is left.
    if not abs(found.moved) <= MOST_MOVED * error * (1 - found.own**2):
        return nan, nan, "trends"
    width = stats.t.ppf(0.975, len(sizes) - 1) * error
    least = np.arctanh(np.clip(found.own * _left_without_luck(found.weight), -1 + 1e-9, 1 - 1e-9))
    low, high = np.tanh(min(own, least) - width), np.tanh(max(own, least) + width)
    return float(low), float(high), None


def _left_without_luck(weight: float) -> float:
    """Return which part of a coefficient is left if so many tokens were met by luck.

    Of a decision that is rarely taken one way, only texts that met it ``MIN_WEIGHT`` times have an
    interval, and a coefficient grows with the root of the rate in the text. So it is overstated by
    as much as these texts meet it oftener on average, at the lower 90% limit of what they met.
    """
    rate = stats.gamma.ppf(0.1, weight)
    kept, without_one = stats.poisson.sf([MIN_WEIGHT - 1, MIN_WEIGHT - 2], rate)
    return float(np.sqrt(kept / without_one))


def _of_waves(x: Floats, y: Floats, basis: Floats, resampling: Resampling) -> tuple[float, Floats]:
    """Return the coefficient of the waves of two figures, and with random signs."""
    texts, signs = resampling.texts, resampling.signs
    left, right = (_left_over(waves(each, texts), basis) for each in (x, y))
    own = _cosine(left, right)
    if not np.isfinite(own):
        return own, np.full(len(signs), np.nan)
    # What was taken out comes back in part with other signs, and would make the coefficients too
    # small (Freedman and Lane, "A nonstochastic interpretation of reported significance levels",
    # 1983).
    back = signs @ (left[:, None] * basis)
    spread = np.maximum((left @ left) - (back**2).sum(axis=1), 0.0) * (right @ right)
    with np.errstate(invalid="ignore", divide="ignore"):
        signed = signs @ (left * right) / np.sqrt(spread)
    return own, np.nan_to_num(signed)


def _compared(
    x: Floats, y: Floats, basis: Floats | None, method: CorrelationMethod, document: Ints
) -> tuple[Floats, Floats]:
    """Return two figures, or their ranks, as they are correlated."""
    left, right = (
        _left_over(_less_means(_ranked(each, method), document), basis) for each in (x, y)
    )
    return left, right


def _weight(values: Floats) -> float:
    """Return how many tokens the spread of a figure rests on: their count over its kurtosis."""
    squares = (values - values.mean()) ** 2
    return float(squares.sum() ** 2 / max(float((squares**2).sum()), 1e-300))


def _coefficient(x: Floats, y: Floats, method: CorrelationMethod) -> float:
    """Return the coefficient; Spearman's is Pearson's of ranks, which were taken before."""
    if method == "kendall":
        return float(stats.kendalltau(x, y).statistic)
    return _cosine(x - x.mean(), y - y.mean())


def _cosine(x: Floats, y: Floats) -> float:
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread > 1e-12 else float("nan")


def _ranked(values: Floats, method: CorrelationMethod) -> Floats:
    """Return figures, or their ranks where the method takes them."""
    ranked = values if method == "pearson" else stats.rankdata(values, axis=0)
    return np.asarray(ranked, dtype=np.float64)


def _less_means(values: Floats, document: Ints) -> Floats:
    """Return figures less their mean in the text, [tokens, ...], or as they are if it is one."""
    if (document == document[0]).all():
        return values
    total = np.zeros((document.max() + 1, *values.shape[1:]))
    np.add.at(total, document, values)
    # A text of which all was left out has no tokens to take a mean from.
    count = np.maximum(np.bincount(document), 1).reshape(-1, *[1] * (values.ndim - 1))
    return unrounded(values - (total / count)[document], values)


def _basis(covariates: Floats | None, method: CorrelationMethod, document: Ints) -> Floats | None:
    """Return orthonormal columns that span a constant and the covariates, [tokens, columns]."""
    if covariates is None:
        return None
    design = np.column_stack([np.ones(len(covariates)), _ranked(covariates, method)])
    found: Floats = linalg.orth(_less_means(design, document))
    return found


def _left_over(values: Floats, basis: Floats | None) -> Floats:
    """Return what a linear regression on a basis leaves of figures, [tokens]."""
    if basis is None:
        return values
    rest: Floats = values - basis @ (basis.T @ values)
    return unrounded(rest, values) if len(rest) else rest


def _check(x: Floats, y: Floats, covariates: Floats | None) -> None:
    if len(x) != len(y) or (covariates is not None and len(covariates) != len(x)):
        raise InputError(
            f"{len(x)} and {len(y)} figures cannot be paired"
            + ("" if covariates is None else f" with {len(covariates)} rows of covariates")
            + "; give one of each for every token."
        )
    whole = [x, y] if covariates is None else [x, y, covariates]
    if not all(np.isfinite(each).all() for each in whole):
        raise InputError("Some figures are missing or infinite; leave those tokens out.")
