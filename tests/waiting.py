"""Waits for what another thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(done: Callable[[], object], *, seconds: float = 30) -> float:
    """Return after how many seconds something holds; fail if it does not in time."""
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.005)
    return time.monotonic() - begun
