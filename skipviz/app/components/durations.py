"""How long something takes, in words."""

from __future__ import annotations


def in_words(seconds: float | int) -> str:
    """Return a duration in words."""
    return f"{max(1.0, seconds):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def takes(seconds: float | int | None) -> str:
    """Return how long a run takes, as far as it was measured, as the end of a sentence."""
    if seconds is None:
        return "time unknown before the first such run here"
    return f"this takes about {in_words(seconds)}, as measured here"
