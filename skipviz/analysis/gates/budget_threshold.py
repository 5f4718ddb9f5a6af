"""The threshold at which a text realises a budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import optimize

from skipviz.analysis.counterfactual import decided_by
from skipviz.analysis.flops import realised_budget
from skipviz.arrays import Bools
from skipviz.errors import InputError
from skipviz.traces import Trace


def threshold_for(seen: Trace, budget: float, *, counted: Bools | None = None) -> float:
    """Return the threshold that would realise the budget if no score changed with it.

    Scores do change, downstream of other decisions, so the caller runs again and looks. Decisions
    that a plan made stay.

    Parameters
    ----------
    seen
        A trace of learned gates.
    budget
        The budget to realise.
    counted
        True for each token that the budget is of, of shape [tokens]; all of them if None.

    Raises
    ------
    ValueError
        If running or skipping everything does not get there.
    """

    def excess(threshold: float) -> float:
        return _budget_at(seen, threshold, counted) - budget

    score = seen.matrix("score")
    low, high = float(np.nanmin(score)) - 1, float(np.nanmax(score))
    if not excess(high) <= 0 <= excess(low):
        raise InputError(
            f"Budget {budget} is out of reach: skipping all leaves {excess(high) + budget:.3f} "
            f"and running everything {excess(low) + budget:.3f}. Choose one in between."
        )
    # Scores have no scale of their own: as near as their float32 tells apart.
    near = float(np.finfo(np.float32).eps) * (high - low)
    return float(optimize.brentq(excess, low, high, xtol=near))


def budget_range(seen: Trace) -> tuple[float, float]:
    """Return the budgets that a text comes to if all that has a gate is skipped, and if all runs.

    Parameters
    ----------
    seen
        A trace of learned gates.
    """
    score = seen.matrix("score")
    return _budget_at(seen, float(np.nanmax(score)), None), _budget_at(
        seen, float(np.nanmin(score)) - 1, None
    )


def _budget_at(seen: Trace, threshold: float, counted: Bools | None) -> float:
    """Return what a threshold would come to if no score changed with it."""
    executed = decided_by(seen, np.full(seen.sites.height, threshold)).astype(np.uint8)
    decided = replace(seen, matrices={**seen.matrices, "exec_count": executed})
    return realised_budget(decided, counted=counted)
