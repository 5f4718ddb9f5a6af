"""What a text would have been under other decisions: paths, loss, predictions and cost."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch

from skipviz.analysis.counterfactual import WhatIf
from skipviz.analysis.flops import realised_budget
from skipviz.analysis.gates.budget_threshold import threshold_for
from skipviz.experiments.counterfactuals.asking import Asking, check_trace
from skipviz.experiments.counterfactuals.question import (
    Forced,
    Question,
    Thresholds,
    check_asked,
    question_of,
)
from skipviz.families import Plan
from skipviz.families.powers import CanThreshold
from skipviz.models import SkipModel
from skipviz.progress import Progress, no_progress
from skipviz.text.arguments import checked
from skipviz.traces import Trace

NEAR_BUDGET = 0.005
"""How near to a budget that was asked for a text is to come."""
SEARCHED = 8
"""Runs in search of a threshold, at most."""


@checked
def what_if(
    model: SkipModel,
    trace: Trace,
    *,
    threshold: Thresholds | None = None,
    budget: float | None = None,
    sites: Forced | None = None,
    plan: Plan | None = None,
    progress: Progress = no_progress,
    stop: threading.Event | None = None,
) -> WhatIf:
    """Return what a text would have been under other decisions, beside what it was.

    It is what ``skipviz.trace`` gives under the same thresholds and the same plan. Only what can
    differ is run: layers from the first with another decision on, tokens from the first with one
    on. The first question about a trace runs the text once more, to keep its hidden states; the
    same question again is answered at once. Where weights have changed since, what was kept is not
    used. Changes through ``.data``, which torch does not count, are found by about 512 numbers of
    each parameter: one of a few numbers alone may be missed. Then trace the text again.

    Parameters
    ----------
    model
        The model that was traced, at the same budget.
    trace
        Its trace of one text, which fits one window. Decisions that a plan made in it stay.
    threshold
        Another threshold: a number for all sites, or one for each site or layer that is named, as
        ``{"L3.mlp": 0.1}`` or ``{3: 0.1}``. On the scale of the scores.
    budget
        What this text is to come to, from 0 to 1: one threshold for all sites is found at which it
        does, within 0.005. Where none is found, the nearest that was is the answer, and its
        question says so. Models without gates that score take their own budgets only.
    sites
        What to force to run (True) or to be skipped (False), as ``{(token, site): run}``: a site
        is a label or the number of a layer; None stands for all tokens, or for all sites. What
        comes later in it counts. Together with ``threshold`` or ``budget``, it is forced on top.
    plan
        Decisions to force, instead of ``sites``.
    progress
        Called with the share of the work done, 0 to 1.
    stop
        Set it from another thread to stop.

    Returns
    -------
    WhatIf
        The new trace, the decisions that changed, and loss, predictions and cost beside those
        before.

    Raises
    ------
    InputError
        If the model cannot do what is asked, the trace is of another model or of several texts, or
        a budget is out of reach.
    Stopped
        If ``stop`` was set.

    Examples
    --------
    >>> answer = skipviz.what_if(model, trace, sites={(2, "L3.mlp"): True})
    >>> answer.changed["asked"].sum(), answer.trace.run["policy"].item()
    (1, 'forced')
    >>> cheaper = skipviz.what_if(model, trace, budget=0.8)
    >>> abs(cheaper.costs[1].budget - 0.8) < 0.005
    True
    """
    check_asked(model, threshold=threshold, budget=budget, sites=sites, plan=plan)
    check_trace(model, trace)
    searched = budget is not None and isinstance(model.family, CanThreshold)
    with torch.inference_mode():
        if searched:
            return _at_budget(model, trace, float(budget or 0), sites, plan, progress, stop)
        question = question_of(
            model, trace, threshold=threshold, budget=budget, sites=sites, plan=plan
        )
        return Asking(model, trace, progress, stop).answer(question)


def _at_budget(
    model: SkipModel,
    trace: Trace,
    budget: float,
    sites: Forced | None,
    plan: Plan | None,
    progress: Progress,
    stop: threading.Event | None,
) -> WhatIf:
    """Return the answer at the threshold at which the text comes nearest to a budget."""
    asking = Asking(model, trace, no_progress, stop)
    rest = question_of(model, trace, sites=sites, plan=plan)
    setting, forced = rest.key
    key = (f"{setting} budget {budget!r}", forced)
    answer = asking.kept(key, rest.words)
    if answer is None:
        nearest = _nearest(asking, model, trace, budget, sites, plan, progress)
        answer = asking.answer(nearest, key=key)
    progress(1.0)
    words = [_budget_in_words(budget, realised_budget(answer.trace)), rest.words]
    return replace(answer, question=", ".join(filter(None, words)))


def _budget_in_words(asked: float, realised: float) -> str:
    """Return a budget that was asked for, and what was found instead where it was not met."""
    if abs(realised - asked) <= NEAR_BUDGET:
        return f"budget {asked:g}"
    return f"budget {asked:g} not met (nearest found {realised:.4f})"


def _nearest(
    asking: Asking,
    model: SkipModel,
    trace: Trace,
    budget: float,
    sites: Forced | None,
    plan: Plan | None,
    progress: Progress,
) -> Question:
    """Search for the threshold at which the text comes nearest to a budget."""
    seen, tried, found = trace, set(), []
    for attempt in range(SEARCHED):
        limit = threshold_for(seen, budget)
        if limit in tried:
            break
        tried.add(limit)
        question = question_of(model, trace, threshold=limit, sites=sites, plan=plan)
        seen = asking.decisions(question)
        off = abs(realised_budget(seen) - budget)
        found.append((off, question))
        progress(1 - 0.5 ** (attempt + 1))
        if off <= NEAR_BUDGET:
            break
    return min(found, key=lambda each: each[0])[1]
