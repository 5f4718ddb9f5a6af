"""What is left of figures along a text when what changes slowly is taken out.

Two figures that both rise or fall along a text go together whatever they are, as any two trends do.
So a text is taken apart into waves (a discrete cosine transform), and its slow ones are left out,
as are a line, and a cubic curve in a text of at least one block. What is left of two figures that
have nothing to do with each other is independent from wave to wave, however alike neighbouring
tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

from skipviz.analysis.statistics.blocks import BLOCK_TOKENS
from skipviz.arrays import Floats, Ints

_ROUNDING = 1e-9
"""Share of the spread of figures below which what is left of them is rounding."""


def waves(values: Floats, texts: Sequence[Ints]) -> Floats:
    """Return figures as waves, without those that are slow and without trends.

    Slow is a wave whose half is longer than a block of ``BLOCK_TOKENS`` tokens.

    Parameters
    ----------
    values
        A number per token, [tokens], or several, [tokens, figures].
    texts
        The tokens of each text, in reading order.

    Returns
    -------
    ndarray
        The waves of all texts, [waves] or [waves, figures]; 0 where only rounding is left. Products
        summed over waves are those summed over tokens, but for what was taken out.
    """
    found = [_waves_of_one(values[tokens]) for tokens in texts]
    return unrounded(np.concatenate(found), values, axis=0)


def _waves_of_one(values: Floats) -> Floats:
    tokens = len(values)
    slow = 1 + tokens // BLOCK_TOKENS
    place = np.linspace(-1, 1, tokens)
    degree = 3 if tokens >= BLOCK_TOKENS else 1
    curves = np.polynomial.legendre.legvander(place, degree)[:, 1:]
    # Joined, so that slow waves and curves are taken out at once.
    both = np.column_stack([values, curves])
    kept = fft.dct(both, type=2, norm="ortho", axis=0)[slow:]
    rest, trends = kept[:, :-degree], kept[:, -degree:]
    if len(trends) <= degree:
        return np.zeros((0, *values.shape[1:]))
    basis, _ = np.linalg.qr(trends)
    found: Floats = (rest - basis @ (basis.T @ rest)).reshape(-1, *values.shape[1:])
    return found


def unrounded(rest: Floats, values: Floats, *, axis: int) -> Floats:
    """Return what is left of figures, 0 where that is no more than rounding.

    Parameters
    ----------
    rest
        What is left.
    values
        The figures.
    axis
        Along which a figure goes.
    """
    scale = np.maximum(values.std(axis=axis, keepdims=True), 1e-300)
    return np.where(np.abs(rest) < _ROUNDING * scale, 0.0, rest)
