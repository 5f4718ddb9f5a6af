"""What is left of figures along a text when what changes slowly is taken out.

Two figures that both rise or fall along a text go together whatever they are, as any two trends do.
So a text is taken apart into waves (a discrete cosine transform), and its slow ones are left out.
What is left of two figures that have nothing to do with each other is independent from wave to
wave, however alike neighbouring tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

from skipviz.arrays import Floats, Ints

SLOW_TOKENS = 16
"""A wave is slow if its half is longer than so many tokens."""
LEAST_SLOW = 3
"""Waves of a text that are slow however short it is; most of a straight line is in them."""
_LEAST_LEFT = 0.01
"""Share of the variance of a figure that is left, at least. Of less, too much may be a trend's."""
_ROUNDING = 1e-9
"""Share of the spread of figures below which what is left of them is rounding."""


def waves(values: Floats, texts: Sequence[Ints]) -> Floats:
    """Return figures as waves, without those that are slow.

    Parameters
    ----------
    values
        A number per token, [tokens], or several, [tokens, figures].
    texts
        The tokens of each text, in reading order.

    Returns
    -------
    ndarray
        The waves of all texts, [waves] or [waves, figures]; 0 throughout where next to nothing is
        left of a figure. Products summed over waves are those summed over tokens, but for what was
        taken out.
    """
    every = [fft.dct(values[tokens], type=2, norm="ortho", axis=0) for tokens in texts]
    # The first wave is the mean.
    varying = sum((each[1:] ** 2).sum(axis=0) for each in every)
    kept = np.concatenate(
        [each[1 + max(LEAST_SLOW, len(each) // SLOW_TOKENS) :] for each in every], axis=0
    )
    found: Floats = np.where((kept**2).sum(axis=0) >= _LEAST_LEFT * varying, kept, 0.0)
    return found


def unrounded(rest: Floats, values: Floats) -> Floats:
    """Return what is left of figures, 0 where that is no more than rounding.

    Parameters
    ----------
    rest
        What is left, [tokens, ...].
    values
        The figures.
    """
    scale = np.maximum(values.std(axis=0, keepdims=True), 1e-300)
    return np.where(np.abs(rest) < _ROUNDING * scale, 0.0, rest)
