"""Traces that may be looked at together: those of one model."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from skipviz.errors import InputError
from skipviz.traces import Trace

SITE_KEY = ("layer", "unit", "visit")
"""What makes two sites the same."""


def traces_of_one_model(traces: Trace | Sequence[Trace]) -> list[Trace]:
    """Return the traces as a list, if they can be looked at together.

    Raises
    ------
    ValueError
        If there are none, or they are of different models or sites.
    """
    several = [traces] if isinstance(traces, Trace) else list(traces)
    if not several:
        raise InputError("There are 0 traces; give at least one.")
    for trace in several[1:]:
        check_same_model(trace, several[0].sites, several[0].run["weights_sha256"][0])
    return several


def check_same_model(trace: Trace, sites: pl.DataFrame, weights: str | None) -> None:
    """Raise ``ValueError`` unless a trace has these sites and comes from these weights."""
    if not trace.sites.select(SITE_KEY).equals(sites.select(SITE_KEY)):
        raise InputError(
            f"A trace of {trace.run['model'][0]} has {trace.sites.height} sites, and not the same "
            f"ones as the {sites.height} of the first; give traces of one model."
        )
    found = trace.run["weights_sha256"][0]
    if found != weights:
        raise InputError(
            f"Traces of weights {str(found)[:12]} and {str(weights)[:12]} cannot be looked at "
            "together: the same site means another thing in each. Give traces of one model."
        )
