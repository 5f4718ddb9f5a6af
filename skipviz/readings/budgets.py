"""Where a budget was asked for and the text came to another: that it is so, and what helps."""

from __future__ import annotations

import shlex

from skipviz.traces import Trace


def budget_reading(trace: Trace) -> tuple[str, str] | None:
    """Say that the text did not come to the budget asked for, and what helps.

    Parameters
    ----------
    trace
        The trace.

    Returns
    -------
    tuple or None
        What was asked for and realised, and the remedy, empty where there is none; None where the
        budget was met within 0.02, or none was asked for.
    """
    missed = trace.budget_missed
    if missed is None:
        return None
    asked, realised = missed
    set_by = "thresholds were set" if has_thresholds(trace) else "policy was made"
    said = (
        f"The budget on this text is {realised:z.2f}; the {set_by} for {asked:z.2f} on other texts."
    )
    return said, remedy(trace.run["model"].item(), asked) if has_thresholds(trace) else ""


def has_thresholds(trace: Trace) -> bool:
    """Say whether one threshold decides at every site, which can be set anew."""
    rules = set(trace.sites["rule"])
    return rules == {"gt"}


def remedy(model: str, asked: float) -> str:
    """Return the sentence that names the command which sets thresholds for a kind of text."""
    return f"`{calibrate_command(model, asked)}` sets thresholds for texts like yours."


def calibrate_command(model: str, asked: float) -> str:
    """Return the command that sets thresholds for a kind of text."""
    return f"skipviz calibrate {shlex.quote(model)} --budget {asked:g} --text FILE"
