"""Whether a mean of bounded losses is below a limit, whatever their distribution."""

from __future__ import annotations

import numpy as np

from skipviz.arrays import Floats

_FIRST_VARIANCE = 0.25
"""What is taken for the variance before anything was seen: the largest that there can be."""


def betting_p_value(
    losses: Floats, limit: float, *, bound: float, confidence: float, seed: int = 0
) -> float:
    """Return a p-value for the mean of clipped losses being at least a limit.

    A bettor who knows only the losses before puts money on the next one lying below the limit. If
    the mean is not below it, the bettor's wealth grows beyond ``w`` with a probability of at most
    1 / w (Ville's inequality), in a sample of any size and of any distribution; so one over the
    greatest wealth is a p-value.

    Parameters
    ----------
    losses
        One per document, in nats, clipped to ``-bound`` and ``bound`` before anything else.
    limit
        In nats, inside the bound.
    bound
        Largest loss of a document that counts, in nats.
    confidence
        At which the bets are best, 0 to 1; the p-value holds at any.
    seed
        Of the order in which the losses are bet on, so that texts of one kind are not in a row.

    Returns
    -------
    float
        0 to 1: at most ``a`` with a probability of at most ``a``, if documents are independent
        draws of one population whose mean clipped loss is at least ``limit``.

    References
    ----------
    Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2023; in
    learn-then-test and conformal risk control the bound called WSR.
    """
    shuffled = np.random.default_rng(seed).permutation(np.clip(losses, -bound, bound))
    shares = (shuffled + bound) / (2 * bound)
    wealth = np.cumsum(bets(shares, (limit + bound) / (2 * bound), confidence=confidence))
    return float(min(1.0, np.exp(-wealth.max())))


def bets(shares: Floats, level: float, *, confidence: float) -> Floats:
    """Return what each bet adds to the logarithm of the bettor's wealth.

    Parameters
    ----------
    shares
        Losses scaled to 0 to 1, in order.
    level
        The mean that is tested, on that scale.
    confidence
        At which the bets are best.
    """
    count = np.arange(1, len(shares) + 1)
    mean = (0.5 + np.cumsum(shares)) / (count + 1)
    variance = (_FIRST_VARIANCE + np.cumsum((shares - mean) ** 2)) / (count + 1)
    # A bet knows what was seen before it, and nothing of what it is on.
    known = np.concatenate([[_FIRST_VARIANCE], variance[:-1]])
    stake = np.minimum(1.0, np.sqrt(2 * np.log(1 / (1 - confidence)) / (len(shares) * known)))
    added: Floats = np.log1p(-stake * (shares - level))
    return added
