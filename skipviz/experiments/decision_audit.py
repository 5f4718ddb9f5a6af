"""The utility of every decision, exactly: flip it, hold all others, and see what the loss does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from skipviz.arrays import Bools, Floats
from skipviz.errors import InputError, RecordingError
from skipviz.experiments.audit_store import AuditStore, audit_of
from skipviz.experiments.flips import flips_of
from skipviz.experiments.same_model import check_traced
from skipviz.experiments.score_rounding import score_rounding
from skipviz.families.powers import CanFlip, SkippableUnit
from skipviz.models import SkipModel
from skipviz.models.runtimes import with_runtime
from skipviz.progress import Meter, Progress, no_progress
from skipviz.text.arguments import checked
from skipviz.traces import Trace

Downstream = Literal["held", "react"]
FLIPPED_TOKENS_AT_ONCE = 4096
"""Tokens run at once, if nothing else is asked."""

UTILITY = {
    "token": pl.Int64,
    "site": pl.Int64,
    "executed": pl.Boolean,
    "nll": pl.Float64,
    "flipped_nll": pl.Float64,
    "utility": pl.Float64,
    "later_margin": pl.Float64,
    "by_rounding": pl.Boolean,
}


@checked
def audit(
    model: SkipModel,
    trace: Trace,
    *,
    horizon: int | None = 1,
    downstream: Downstream = "held",
    cells: Sequence[tuple[int, int]] | None = None,
    rows: int = FLIPPED_TOKENS_AT_ONCE,
    store: Path | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> pl.DataFrame:
    """Return what each decision was worth.

    Parameters
    ----------
    model
        The gated model that was traced.
    trace
        Its trace of one text, which fits one window.
    horizon
        How many next-token predictions count, the flipped token's own first; None counts all that
        follow. 1 misses what keys and values do for later tokens.
    downstream
        ``held`` keeps every other decision as it was; ``react`` lets the gates above decide anew.
    cells
        (token, site) pairs to flip; every one if there are none.
    rows
        Tokens to run at once; memory grows with it.
    store
        A Parquet file of cells done before, which are not run again; new ones are added as they
        are done. It belongs to one text, model, policy, horizon and choice for downstream gates;
        that of another audit is refused.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop; what is in ``store`` stays.

    Returns
    -------
    pl.DataFrame
        One row per cell, in order of token and site: ``token``, ``site``; ``executed``, the
        decision that was flipped; ``nll`` and ``flipped_nll``, the loss in nats over the horizon
        before and after; ``utility``, the loss with the unit skipped minus that with it executed,
        in nats: positive where executing helps. Where gates above decide anew, ``later_margin`` is
        the smallest distance of their scores from the threshold, on the gates' own scale, and
        ``by_rounding`` says that one lies nearer than rounding moves its score on this text:
        another run may find another utility. Both are null where gates are held, or none above
        decided anew. Cells of the last token, which predicts nothing, are left out.

    Raises
    ------
    ValueError
        If the model has no gated units, the trace is of several sequences, of other sites, weights
        or thresholds, or longer than the context, or a cell does not exist.
    StoreError
        If ``store`` is damaged, or of another audit.
    RecordingError
        If a loss after a flip is not a number.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> cells = skipviz.audit(model, trace, cells=[(0, 1), (3, 1)])
    >>> cells.select("token", "site", "executed").rows()
    [(0, 1, True), (3, 1, True)]
    >>> (cells["utility"] > 0).to_list()  # where executing helps
    [False, False]
    """
    model = with_runtime(model, "masked")  # whose units can be taken apart
    units = _units(model, trace)
    length = len(trace) - 1
    reach = length if horizon is None else min(horizon, length)
    if reach < 1:
        raise InputError(f"horizon={horizon} must be at least 1, or None for all that follow.")
    wanted = _cells(cells, length, trace.sites.height)
    react = downstream == "react"
    kept = _store(store, model, trace, horizon=horizon, downstream=downstream)
    known = {} if kept is None else kept.read()
    ids = torch.tensor([trace.tokens["token_id"].to_list()], device=model.device)
    with torch.inference_mode():
        flips = flips_of(model, units, ids, trace.matrix("exec_count") > 0, stop=stop)
        rounding = score_rounding(model, units, trace, stop=stop) if react else None
        groups = _groups([cell for cell in wanted if cell not in known], length, reach, rows)
        meter = Meter(max(1, sum(flips.work(group, reach) for group in groups)), progress, stop)
        for group in groups:
            losses, margins = flips.losses(group, reach, react=react, meter=meter)
            near = _nearest(margins.double().cpu().numpy(), rounding)
            _check_losses(group, losses, trace)
            known |= dict(zip(group, zip(losses.tolist(), *near, strict=True), strict=True))
            if kept is not None:
                kept.write(known)
    progress(1.0)
    token, site = np.array(wanted, dtype=np.int64).reshape(-1, 2).T
    executed = trace.matrix("exec_count")[token, site] > 0
    totals = np.concatenate([[0.0], np.cumsum(flips.nll.double().cpu().numpy())])
    before = totals[np.minimum(token + reach, length)] - totals[token]
    flipped, margin, rounded = ([known[cell][place] for cell in wanted] for place in range(3))
    after = np.array(flipped, dtype=np.float64)
    utility = np.where(executed, 1, -1) * (after - before)
    columns = (token, site, executed, before, after, utility, margin, rounded)
    return pl.DataFrame(dict(zip(UTILITY, columns, strict=True)), schema=UTILITY)


def _store(
    path: Path | None,
    model: SkipModel,
    trace: Trace,
    *,
    horizon: int | None,
    downstream: Downstream,
) -> AuditStore | None:
    if path is None:
        return None
    about = audit_of(model, trace, horizon=horizon, downstream=downstream)
    return AuditStore(path=Path(path), about=about, tokens=len(trace) - 1, sites=trace.sites.height)


def _check_losses(group: Sequence[tuple[int, int]], losses: Tensor, trace: Trace) -> None:
    """Raise ``RecordingError`` where a flip leads to a loss that is not a number."""
    wrong = torch.nonzero(~torch.isfinite(losses))
    if len(wrong):
        token, site = group[int(wrong[0])]
        raise RecordingError(
            f"Reversing the decision of token {token} at {trace.sites['label'][site]} gives a loss "
            "that is NaN or infinite. Load the model with dtype='float32', or leave the cell out."
        )


def _nearest(
    margins: Floats, rounding: Floats | None
) -> tuple[list[float | None], list[bool | None]]:
    """Return each flip's smallest later margin, and whether one is smaller than rounding."""
    nearest: Floats = margins.min(axis=1, initial=np.inf)
    decided: Bools = np.asarray(np.isfinite(nearest))
    if rounding is None or not decided.any():
        return [None] * len(margins), [None] * len(margins)
    rounded: Bools = np.asarray((margins <= rounding).any(axis=1))
    return (
        [float(each) if known else None for each, known in zip(nearest, decided, strict=True)],
        [bool(each) if known else None for each, known in zip(rounded, decided, strict=True)],
    )


def _groups(
    cells: Sequence[tuple[int, int]], length: int, reach: int, rows: int
) -> list[list[tuple[int, int]]]:
    """Cut cells into groups that run together.

    Cells of one group are of like site, so that they start at like layers, and of like reach.
    """
    # Rows of one group are as long as its longest.
    ordered = sorted(cells, key=lambda cell: (min(reach, length - cell[0]), cell[1], cell[0]))
    groups: list[list[tuple[int, int]]] = []
    for cell in ordered:
        tokens = min(reach, length - cell[0])
        if not groups or (len(groups[-1]) + 1) * tokens > max(rows, tokens):
            groups.append([])
        groups[-1].append(cell)
    return [sorted(group, key=lambda cell: (cell[1], cell[0])) for group in groups]


def _cells(
    cells: Sequence[tuple[int, int]] | None, length: int, sites: int
) -> list[tuple[int, int]]:
    if cells is None:
        return [(token, site) for token in range(length) for site in range(sites)]
    for token, site in cells:
        if not (0 <= token < length and 0 <= site < sites):
            raise InputError(
                f"There is no cell {(token, site)} to flip: tokens go from 0 to {length - 1} (the "
                f"last predicts nothing) and sites from 0 to {sites - 1}."
            )
    return sorted(set(cells))


def _units(model: SkipModel, trace: Trace) -> list[SkippableUnit]:
    """Return the units that can be flipped, if the trace is one that can be audited."""
    if not isinstance(model.family, CanFlip):
        raise InputError(
            f"{model.name} is of the family {model.family.name}; decisions can be flipped one by "
            "one in models with gated units."
        )
    if trace.tokens["sequence"].n_unique() != 1 or len(trace) < 2:
        raise InputError(
            f"The trace has {trace.tokens['sequence'].n_unique()} sequences and {len(trace)} "
            "tokens; an audit takes one text of at least two tokens."
        )
    if len(trace) > model.context:
        raise InputError(
            f"The text has {len(trace)} tokens and the model sees {model.context}; audit a part."
        )
    check_traced(model, trace)
    return model.family.units(model.model)
