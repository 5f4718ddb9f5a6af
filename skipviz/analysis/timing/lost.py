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
    "seconds": pl.Float64,
    "share": pl.Float64,
    "ideal_seconds": pl.Float64,
    "lost_seconds": pl.Float64,
}

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
    *,
    ran: Mapping[str, Mapping[str, float]],
    saved: Mapping[str, float | None],
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
    ran
        For each phase, how much of the dense work of ``attention``, ``MLP`` and ``head`` is done,
        0 to 1 or more, by part.
    saved
        For each phase, the share of all its work that is saved; None: unknown.

    Returns
    -------
    pl.DataFrame
        One row for each phase, runtime and part of ``TIMED_PARTS``: ``seconds`` per text in
        prefill and per token in decode, which add up to the median of the runs; ``share`` of the
        dense model's whole; ``ideal_seconds``: of attention, MLP and head, the dense ones times
        the work done; of gates, adapters and gathering, none; of the rest, what is left of the
        dense time times the work done, so that the parts add up to it; and ``lost_seconds``,
        seconds minus ideal ones, above 0 where saving was lost. The last two are null where the
        work is not known, and for the dense model.
    """
    rows: list[dict[str, Any]] = []
    for phase in PHASES:
        scaled = {each: _scaled(profiled, runs, phase, each) for each in RUNTIMES}
        dense = scaled["dense"]
        if dense is None:
            continue
        whole = sum(dense.values())
        share = saved.get(phase)
        ideal = None if share is None else _ideal(dense, ran.get(phase, {}), 1.0 - share)
        for runtime in RUNTIMES:
            own = scaled[runtime]
            if own is None:
                continue
            known = None if runtime == "dense" else ideal
            for part in TIMED_PARTS:
                rows.append(
                    {
                        "phase": phase,
                        "runtime": runtime,
                        "part": part,
                        "seconds": own[part],
                        "share": own[part] / whole,
                        "ideal_seconds": None if known is None else known[part],
                        "lost_seconds": None if known is None else own[part] - known[part],
                    }
                )
    return pl.DataFrame(rows, schema=PART_TIMES)


def _scaled(
    profiled: pl.DataFrame, runs: pl.DataFrame, phase: str, runtime: str
) -> dict[str, float] | None:
    found = profiled.filter(phase=phase, runtime=runtime)
    taken = runs.filter(phase=phase, runtime=runtime)
    total = float(found["seconds"].sum())
    if found.is_empty() or taken.is_empty() or total <= 0:
        return None
    by_round = taken.group_by("round").agg(pl.col("seconds").mean())["seconds"]
    factor = float(np.median(by_round.to_numpy())) / total
    seconds = dict(found.select("part", "seconds").iter_rows())
    return {part: seconds.get(part, 0.0) * factor for part in TIMED_PARTS}


def _ideal(dense: Mapping[str, float], ran: Mapping[str, float], needed: float) -> dict[str, float]:
    found = {part: dense[part] * ran[part] if part in ran else 0.0 for part in TIMED_PARTS}
    found["other"] = sum(dense.values()) * needed - sum(found.values())
    return found
