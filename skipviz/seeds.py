"""Seeds of random draws, which NumPy, torch and scikit-learn all take."""

from __future__ import annotations

from skipviz.errors import InputError

LARGEST_SEED = 2**32 - 1


def check_seed(seed: int) -> int:
    """Return a seed, having made sure that every library takes it.

    Raises
    ------
    InputError
        If it is no whole number from 0 to 4,294,967,295.

    Examples
    --------
    >>> check_seed(7)
    7
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed={seed!r:.40} must be a whole number from 0 to {LARGEST_SEED:,}.")
    return seed
