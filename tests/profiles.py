"""Depth profiles with known groups, and traces that have them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import hadamard

from skipviz.traces import Trace
from tests.synthetic import make_trace

LAYERS = 14
GATED = tuple(range(1, 13))


def planted(
    seed: int, *, tokens: int = 240, groups: int = 4, flips: float = 0.05
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return decisions of shape [tokens, sites] and the group of each token.

    Each group has a profile of its own, of which each token flips a share. Any two groups differ
    at half of the sites, which are in an order of their own for each seed.
    """
    generator = np.random.default_rng(seed)
    sites = generator.permutation(2 * len(GATED))
    profiles = hadamard(8)[1 : groups + 1, sites % 8] > 0
    group = generator.integers(groups, size=tokens)
    flipped = generator.random((tokens, profiles.shape[1])) < flips
    return (profiles[group] ^ flipped).astype(np.uint8), group


def unplanted(seed: int, *, tokens: int = 240) -> npt.NDArray[np.uint8]:
    """Return the same decisions, shuffled among tokens at each site."""
    decisions, _ = planted(seed, tokens=tokens)
    return np.random.default_rng(seed + 1).permuted(decisions, axis=0)


def trace_of(decisions: npt.NDArray[np.uint8], *, seed: int = 0, sequences: int = 1) -> Trace:
    """Return a trace with these decisions, whose scores agree with them."""
    return make_trace(
        seed=seed,
        tokens=len(decisions),
        layers=LAYERS,
        gated=GATED,
        exec_count=decisions,
        sequences=sequences,
    )
