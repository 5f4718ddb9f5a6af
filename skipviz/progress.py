"""How a long run says how far it is, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable

from skipviz.errors import Stopped

Progress = Callable[[float], None]
"""Takes the share of the work done, 0 to 1."""


def no_progress(share: float) -> None:
    """Say nothing: what a run reports to where nobody asked."""


def check_stop(stop: threading.Event | None) -> None:
    """Raise ``Stopped`` if ``stop`` has been set; a run without an event cannot be stopped.

    Raises
    ------
    Stopped
        If ``stop`` is set.
    """
    if stop is not None and stop.is_set():
        raise Stopped("The run was stopped.")
