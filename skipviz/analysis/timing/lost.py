"""Where the time goes, and where the part of the saving went that did not arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.timing.measured import PHASES, TIMED_PARTS
from skipviz.schema import Columns

PART_TIMES: Columns = {
    "phase": pl.String,
    "runtime": pl.String,
    "part": pl.String,
    "seconds": pl.Float64,
    "share": pl.Float64,
    "ideal_seconds": pl.Float64,
    "lost_seconds": pl.Float64,
}

IDEAL = {"prefill": "flops_saved", "decode": "bytes_saved"}
"""The work that time follows: arithmetic where many tokens run at once, else reading weights."""

PROFILE: Columns = {
    "phase": pl.String,
    "runtime": pl.String,
    "part": pl.String,
    "seconds": pl.Float64,
}
"""Of ``experiments.timing.profile``: mean seconds of a part per time taken, as profiled."""


def parts_of_time(
    profiled: pl.DataFrame,
    runs: pl.DataFrame,
    saving: pl.DataFrame,
    *,
    ran: Mapping[str, Mapping[str, float]],
) -> pl.DataFrame:
    """Return what each part takes, what it would if all the work saved were time saved, and more.

    A profile takes time of its own. So its parts are scaled to add up to the time measured
    without it.

    Parameters
    ----------
    profiled
        Columns of ``PROFILE``.
    runs
        As ``Cost.runs``.
    saving
        As ``Cost.savings``.
    ran
        For each phase, how much of the dense work of ``attention``, ``MLP`` and ``head`` is done,
        0 to 1 or more, by part.

    Returns
    -------
    pl.DataFrame
        One row for each phase, runtime and part of ``TIMED_PARTS``: ``seconds`` per text in
        prefill and per token in decode, which add up to the median of the dense runs, times one
        less what is saved; ``share`` of the dense model's whole; ``ideal_seconds``: of attention,
        MLP and head, the dense ones times the work done; of gates, adapters and gathering, none;
        of the rest, what is left of the dense time times the work done, so that the parts add up
        to it; and ``lost_seconds``, seconds minus ideal ones, above 0 where saving was lost. The
        last two are null where the work is not known, and for the dense model.
    """
    rows: list[dict[str, Any]] = []
    for phase in PHASES:
        taken = runs.filter(phase=phase, runtime="dense").group_by("round")
        rounds = taken.agg(pl.col("seconds").mean())["seconds"].to_numpy()
        dense = _scaled(profiled, phase, "dense", to=float(np.median(rounds)) if len(rounds) else 0)
        if dense is None:
            continue
        whole = sum(dense.values())
        rows += [_row(phase, "dense", part, dense[part], whole, None) for part in TIMED_PARTS]
        for row in saving.filter(phase=phase).iter_rows(named=True):
            own = _scaled(profiled, phase, row["runtime"], to=whole * (1 - row["time_saved"]))
            work = row[IDEAL[phase]]
            ideal = None if work is None else _ideal(dense, ran.get(phase, {}), 1.0 - work)
            if own is not None:
                rows += [
                    _row(phase, row["runtime"], part, own[part], whole, ideal and ideal[part])
                    for part in TIMED_PARTS
                ]
    return pl.DataFrame(rows, schema=PART_TIMES)


def _row(
    phase: str, runtime: str, part: str, seconds: float, whole: float, ideal: float | None
) -> dict[str, Any]:
    return {
        "phase": phase,
        "runtime": runtime,
        "part": part,
        "seconds": seconds,
        "share": seconds / whole,
        "ideal_seconds": ideal,
        "lost_seconds": None if ideal is None else seconds - ideal,
    }


def _scaled(
    profiled: pl.DataFrame, phase: str, runtime: str, *, to: float
) -> dict[str, float] | None:
    """Return the seconds of each part, so that they add up to a total; None without a profile."""
    found = profiled.filter(phase=phase, runtime=runtime)
    total = float(found["seconds"].sum())
    if total <= 0:
        return None
    seconds = dict(found.select("part", "seconds").iter_rows())
    return {part: seconds.get(part, 0.0) * to / total for part in TIMED_PARTS}


def _ideal(dense: Mapping[str, float], ran: Mapping[str, float], needed: float) -> dict[str, float]:
    found = {part: dense[part] * ran[part] if part in ran else 0.0 for part in TIMED_PARTS}
    found["other"] = sum(dense.values()) * needed - sum(found.values())
    return found
