"""Texts longer than the context run in overlapping windows; this says which."""

from __future__ import annotations

from dataclasses import dataclass

from skipviz.errors import InputError


@dataclass(frozen=True)
class Window:
    """A stretch of a text that runs at once.

    Attributes
    ----------
    start, stop
        First token, and one past the last.
    report
        First token whose figures are taken from this window. Those before it were seen with more
        context by the window before, and are here as context only.
    """

    start: int
    stop: int
    report: int


def plan_windows(tokens: int, *, window: int, overlap: int) -> list[Window]:
    """Cut a text into windows.

    Parameters
    ----------
    tokens
        Length of the text.
    window
        Tokens in a window, at most.
    overlap
        Tokens that a window shares with the one before.

    Raises
    ------
    ValueError
        If the overlap is not smaller than the window.
    """
    if not 0 <= overlap < window:
        raise InputError(f"overlap={overlap} must be at least 0 and smaller than window={window}.")
    windows = [Window(0, min(tokens, window), 0)]
    while windows[-1].stop < tokens:
        report = windows[-1].stop
        start = report - overlap
        windows.append(Window(start, min(tokens, start + window), report))
    return windows
