"""How long a run will take, in words."""

from __future__ import annotations

from skipviz.app.components.run_button import jobs

WITH_GRADIENT = 3
"""How many times as long a run takes that is walked back for gradients."""
_FIRST_GUESS = 150
"""Tokens per second before anything has run here."""


def seconds(forwards: float, tokens: int | float) -> float:
    """Return about how long some runs of a text take here."""
    return forwards * tokens / (jobs().tokens_per_second or _FIRST_GUESS)


def about(duration: float) -> str:
    """Return a duration given in seconds, in words."""
    return f"{max(1.0, duration):.0f} s" if duration < 90 else f"{duration / 60:.0f} minutes"
