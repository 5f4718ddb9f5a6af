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

    low, high = _around_scores(seen)
    least, most = (_budget_at(seen, threshold, counted) for threshold in (high, low))
    if not least <= budget <= most:
        raise InputError(
            f"Budget {budget} is out of reach: skipping all leaves {least:.3f} and running "
            f"everything {most:.3f}. Choose one in between."
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
    low, high = _around_scores(seen)
    return _budget_at(seen, high, None), _budget_at(seen, low, None)


def _around_scores(seen: Trace) -> tuple[float, float]:
    """Return a threshold below every score that is finite, and one that none of them is above."""
    score = seen.matrix("score")
    finite = score[np.isfinite(score)]
    if not finite.size:
        raise InputError("The trace has no finite scores, so no threshold decides anything in it.")
    least = finite.min()
    below = min(float(least) - 1, float(np.nextafter(least, np.float32(-np.inf))))
    return below, float(finite.max())


def _budget_at(seen: Trace, threshold: float, counted: Bools | None) -> float:
    """Return what a threshold would come to if no score changed with it."""
    executed = decided_by(seen, np.full(seen.sites.height, threshold)).astype(np.uint8)
    decided = replace(seen, matrices={**seen.matrices, "exec_count": executed})
    return realised_budget(decided, counted=counted)
