"""Whether two figures of tokens go together, with p-values that neighbouring tokens do not flatter.

Tokens of a text are not independent: what holds for one tends to hold for the next. Permuting them
one by one destroys that and finds significance in noise; here whole blocks of neighbours change
places, and whole blocks are drawn for the bootstrap (Kunsch, "The jackknife and the bootstrap for
general stationary observations", 1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

Floats = npt.NDArray[np.float64]
Method = Literal["pearson", "spearman", "kendall"]
METHODS: tuple[Method, ...] = ("pearson", "spearman", "kendall")
BLOCK = 32
"""Tokens that stay together: several times as far as neighbours are alike."""
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

    method: Method
    tokens: int
    r: float
    low: float
    high: float
    p: float


def correlate(
    x: Floats,
    y: Floats,
    *,
    method: Method = "spearman",
    covariates: Floats | None = None,
    block: int = BLOCK,
    permutations: int = PERMUTATIONS,
    seed: int,
) -> Correlation:
    """Return how far two figures of the same tokens go together.

    Parameters
    ----------
    x, y
        A number a token, in reading order, of shape [tokens].
    method
        The coefficient.
    covariates
        Figures to control for, [tokens, figures]: the coefficient is that of what a linear
        regression on them leaves of both, of their ranks unless the method is ``pearson``.
    block
        Neighbouring tokens that stay together; 1 takes tokens for independent.
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
    _check(x, y, covariates, method, block)
    left, right = _left_over(x, covariates, method), _left_over(y, covariates, method)
    own = float(_coefficients(left[None], right[None], method)[0])
    if not np.isfinite(own):
        nan = float("nan")
        return Correlation(method=method, tokens=len(x), r=nan, low=nan, high=nan, p=nan)
    generator = np.random.default_rng(seed)
    orders = block_orders(len(x), block, permutations, generator)
    shuffled = _coefficients(left[orders], right[None], method)
    # Ties with the data's own coefficient count, up to rounding.
    extreme = (np.abs(shuffled) >= abs(own) - 1e-12).sum()
    draws = _draws(len(x), block, permutations, generator)
    drawn = _coefficients(left[draws], right[draws], method)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Correlation(
        method=method,
        tokens=len(x),
        r=own,
        low=float(low),
        high=float(high),
        p=float((extreme + 1) / (permutations + 1)),
    )


def corrected(table: pl.DataFrame, *, p: str = "p") -> pl.DataFrame:
    """Add ``q``, the p-value after Benjamini and Hochberg over the whole table.

    Parameters
    ----------
    table
        One row a test; those whose p is missing are not counted.
    p
        The column of p-values.
    """
    values = table[p].to_numpy().astype(np.float64)
    tested = np.isfinite(values)
    q = np.full(len(values), np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(values[tested], method="bh")
    return table.with_columns(q=pl.Series(q, dtype=pl.Float64))


def _coefficients(x: Floats, y: Floats, method: Method) -> Floats:
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


def _left_over(values: Floats, covariates: Floats | None, method: Method) -> Floats:
    """Return ranks, where the method takes them, less what the covariates explain."""
    ranked = values.astype(np.float64) if method == "pearson" else stats.rankdata(values)
    if covariates is None:
        return np.asarray(ranked, dtype=np.float64)
    known = covariates if method == "pearson" else stats.rankdata(covariates, axis=0)
    design = np.column_stack([np.ones(len(values)), known])
    solved, *_ = np.linalg.lstsq(design, ranked, rcond=None)
    rest: Floats = ranked - design @ solved
    # What is left of a figure that the covariates explain wholly is rounding.
    scale = max(float(np.std(ranked)), 1e-300)
    return np.where(np.abs(rest) < 1e-9 * scale, 0.0, rest)


def block_orders(
    length: int, block: int, count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return orders in which blocks changed places, [count, length].

    The text is a ring cut anew each time, so that no token is always at the edge of its block.
    """
    starts = np.arange(0, length, block)
    orders = np.empty((count, length), dtype=np.int64)
    for row in orders:
        ring = np.roll(np.arange(length), -int(generator.integers(length)))
        parts = [ring[start : start + block] for start in generator.permutation(starts)]
        row[:] = np.concatenate(parts)
    return orders


def _draws(
    length: int, block: int, count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return tokens drawn in blocks with replacement, [count, length], from a ring."""
    blocks = -(-length // block)
    starts = generator.integers(length, size=(count, blocks))
    drawn = (starts[:, :, None] + np.arange(block)) % length
    found: npt.NDArray[np.int64] = drawn.reshape(count, -1)[:, :length]
    return found


def _check(x: Floats, y: Floats, covariates: Floats | None, method: str, block: int) -> None:
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not one of {', '.join(METHODS)}.")
    if len(x) != len(y) or (covariates is not None and len(covariates) != len(x)):
        raise ValueError(
            f"{len(x)} and {len(y)} figures cannot be paired"
            + ("" if covariates is None else f" with {len(covariates)} rows of covariates")
            + "; give one of each for every token."
        )
    if len(x) < 3:
        raise ValueError(f"{len(x)} tokens are too few to correlate anything; give at least 3.")
    whole = [x, y] if covariates is None else [x, y, covariates]
    if not all(np.isfinite(each).all() for each in whole):
        raise ValueError("Some figures are missing or infinite; leave those tokens out.")
    if block < 1:
        raise ValueError(f"block={block} must be at least 1 token.")
