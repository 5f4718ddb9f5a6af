"""How long something takes, in words."""

from __future__ import annotations

from collections.abc import Mapping


def in_words(seconds: float | int) -> str:
    """Return a duration in words."""
    return f"{max(1.0, seconds):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def all_take(seconds: Mapping[str, float | None]) -> str:
    """Return how long several runs take one after the other, and each, as sentences.

    Parameters
    ----------
    seconds
        Of each run, by what its button says; None where it is not known.
    """
    known = {name: each for name, each in seconds.items() if each is not None}
    unknown = [name for name, each in seconds.items() if each is None]
    if not known:
        return "Time unknown before the first such runs here."
    least = "At least" if unknown else "About"
    parts = ", ".join(f"{name} {in_words(each)}" for name, each in known.items())
    said = f"{least} {in_words(sum(known.values()))} in all, as measured here: {parts}."
    return f"{said} Not known before the first run here: {', '.join(unknown)}." if unknown else said


def takes(seconds: float | int | None) -> str:
    """Return how long a run takes, as far as it was measured, as the end of a sentence."""
    if seconds is None:
        return "time unknown before the first such run here"
    return f"this takes about {in_words(seconds)}, as measured here"
