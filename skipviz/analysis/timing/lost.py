"""Where the time goes, and where the part of the saving went that did not arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from skipviz.analysis.timing.measured import PHASES, RUNTIMES, TIMED_PARTS
from skipviz.schema import Columns

PART_TIMES: Columns = {
    "phase": pl.String,
    "runtime": pl.String,
    "part": pl.String,
    "profiled_seconds": pl.Float64,
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
        One row for each phase, runtime and part of ``TIMED_PARTS``: ``profiled_seconds`` per text
        in prefill and per token in decode; ``seconds``, these scaled to add up to the median of
        the dense runs, times one less what is saved; ``share`` of the dense model's whole;
        ``ideal_seconds``: of attention, MLP and head, the dense ones times the work done; of
        gates, adapters and gathering, none; of the rest, what is left of the dense time times the
        work done, so that the parts add up to it; and ``lost_seconds``, seconds minus ideal ones,
        above 0 where saving was lost. The last two are null where the work is not known, and for
        the dense model.
    """
    rows: list[dict[str, Any]] = []
    for phase in PHASES:
        taken = runs.filter(phase=phase, runtime="dense").group_by("round")
        rounds = taken.agg(pl.col("seconds").mean())["seconds"].to_numpy()
        raw = {each: _profiled(profiled, phase, each) for each in RUNTIMES}
        dense = _scaled(raw["dense"], to=float(np.median(rounds)) if len(rounds) else 0.0)
        if dense is None:
            continue
        whole = sum(dense.values())
        rows += _rows(phase, "dense", raw["dense"], dense, whole, None)
        for row in saving.filter(phase=phase).iter_rows(named=True):
            own = _scaled(raw[row["runtime"]], to=whole * (1 - row["time_saved"]))
            work = row[IDEAL[phase]]
            ideal = None if work is None else _ideal(dense, ran.get(phase, {}), 1.0 - work)
            if own is not None:
                rows += _rows(phase, row["runtime"], raw[row["runtime"]], own, whole, ideal)
    return pl.DataFrame(rows, schema=PART_TIMES)


def _rows(
    phase: str,
    runtime: str,
    raw: Mapping[str, float],
    seconds: Mapping[str, float],
    whole: float,
    ideal: Mapping[str, float] | None,
) -> list[dict[str, Any]]:
    return [
        {
            "phase": phase,
            "runtime": runtime,
            "part": part,
            "profiled_seconds": raw[part],
            "seconds": seconds[part],
            "share": seconds[part] / whole,
            "ideal_seconds": None if ideal is None else ideal[part],
            "lost_seconds": None if ideal is None else seconds[part] - ideal[part],
        }
        for part in TIMED_PARTS
    ]


def _profiled(profiled: pl.DataFrame, phase: str, runtime: str) -> dict[str, float]:
    found = profiled.filter(phase=phase, runtime=runtime)
    seconds = dict(found.select("part", "seconds").iter_rows())
    return {part: seconds.get(part, 0.0) for part in TIMED_PARTS}


def _scaled(raw: Mapping[str, float], *, to: float) -> dict[str, float] | None:
    """Return the seconds of each part, so that they add up to a total; None without a profile."""
    total = sum(raw.values())
    return {part: each * to / total for part, each in raw.items()} if total > 0 else None


def _ideal(dense: Mapping[str, float], ran: Mapping[str, float], needed: float) -> dict[str, float]:
    found = {part: dense[part] * ran[part] if part in ran else 0.0 for part in TIMED_PARTS}
    found["other"] = sum(dense.values()) * needed - sum(found.values())
    return found
