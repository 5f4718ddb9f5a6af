"""What runs have in common: how far they are, how they are stopped, and their seeds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from skipviz.errors import InputError, Stopped

Progress = Callable[[float], None]
"""Takes the share of the work done, 0 to 1."""


def no_progress(share: float) -> None:
    """Report nothing: the default of ``progress``."""


def part_of(progress: Progress, place: int, parts: int) -> Progress:
    """Return what takes the progress of one of several equal parts, and reports that of all."""
    return lambda share: progress((place + share) / parts)


Say = Callable[[str], None]
"""Takes a sentence about what is being done, or was found."""


def say_nothing(sentence: str) -> None:
    """Report no sentence: the default of ``tell``."""


def check_stop(stop: threading.Event | None) -> None:
    """Raise ``Stopped`` if ``stop`` has been set; a run without an event cannot be stopped.

    Raises
    ------
    Stopped
        If ``stop`` is set.
    """
    if stop is not None and stop.is_set():
        raise Stopped("The run was stopped.")


LARGEST_SEED = 2**32 - 1
"""That NumPy, torch and scikit-learn all take."""


def check_seed(seed: int) -> int:
    """Return a seed, having made sure that every library takes it.

    Raises
    ------
    InputError
        If it is no whole number from 0 to 4,294,967,295.
    """
    if isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"seed={seed!r:.40} must be a whole number from 0 to {LARGEST_SEED:,}.")
    return seed


class Meter:
    """Counts the steps of a run: each says how far it is, and may stop it.

    Parameters
    ----------
    total
        Steps of the whole run.
    progress
        Called with the share of them that is done.
    stop
        Set it from another thread; the next step raises ``Stopped``.
    """

    def __init__(
        self, total: int | float, progress: Progress, stop: threading.Event | None
    ) -> None:
        self._total = total
        self._progress = progress
        self._stop = stop
        self._done = 0.0

    def advance(self, steps: int | float = 1) -> None:
        """Count some steps as done.

        Raises
        ------
        Stopped
            If the run is to stop.
        """
        check_stop(self._stop)
        self._done += steps
        self._progress(min(1.0, self._done / self._total))
