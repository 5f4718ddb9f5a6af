"""What is asked: other thresholds, a plan, and which decisions they change at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from skipviz.analysis.counterfactual import decided_by
from skipviz.arrays import Bools, Floats
from skipviz.errors import InputError
from skipviz.families import Plan, Setting
from skipviz.families.powers import CanForce, CanMoveThresholds, CanThreshold, SharesDecisions
from skipviz.models import SkipModel, at_budget
from skipviz.traces import Trace

Place: TypeAlias = str | int | None
"""A site by its label, all sites of a layer by its number, or all sites."""
Thresholds: TypeAlias = float | Mapping[str | int, float]
Forced: TypeAlias = Mapping[tuple[int | None, Place], bool]
AnswerKey: TypeAlias = tuple[str, bytes]
"""What decides where no plan does, and the plan's bits."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """What is to decide.

    Attributes
    ----------
    base
        The model that is asked, at its own budget or at the one asked for.
    setting
        The thresholds that were asked for; None: those of ``base``.
    plan
        What is forced; None where gates decide everything.
    asked
        Of shape [tokens, sites]: where the question itself decides otherwise than before.
    traceable
        Whether all that changes is ``asked`` and what follows from it.
    words
        The question.
    """

    base: SkipModel
    setting: Setting | None
    plan: Plan | None
    asked: Bools
    traceable: bool
    words: str

    @cached_property
    def model(self) -> SkipModel:
        """A handle under what was asked for, which is made when something is to be run."""
        return self.base if self.setting is None else self.base.under(self.setting)

    @property
    def key(self) -> AnswerKey:
        """What tells it from other questions about the same trace."""
        decides = self.base.setting if self.setting is None else self.setting
        budget = self.base.budget if self.setting is None else None
        setting = f"{self.base.policy} {budget} {'' if decides is None else decides.key}"
        if self.plan is None:
            return setting, b""
        forced = np.ones_like(self.plan.execute) if self.plan.forced is None else self.plan.forced
        return setting, np.packbits(np.stack([forced, forced & self.plan.execute])).tobytes()


def question_of(
    model: SkipModel,
    trace: Trace,
    *,
    threshold: Thresholds | None = None,
    budget: float | None = None,
    sites: Forced | None = None,
    plan: Plan | None = None,
) -> Question:
    """Return what is asked, as ``what_if`` takes it; ``budget`` is one of the model's own.

    Raises
    ------
    InputError
        If the model cannot do it, or a site or token does not exist.
    """
    before = trace.matrix("exec_count") > 0
    base, setting, asked, traceable, words = model, None, np.zeros_like(before), True, []
    decided = before
    if threshold is not None:
        setting, limits, said = _moved(model, trace, threshold)
        words.append(said)
        decided = decided_by(trace, limits)
    if budget is not None:
        base = _own_budget(model, budget)
        words.append(f"budget {budget:g}")
        traceable = False
    forced = trace.matrix("forced").copy()
    execute = before.copy()
    if sites is not None:
        asked_for, runs, said = _forced(model, trace, sites)
        words.append(said)
        forced, execute = forced | asked_for, np.where(asked_for, runs, execute)
    if plan is not None:
        _check_plan(plan, trace)
        given = np.ones_like(before) if plan.forced is None else plan.forced
        words.append(f"a plan of {int(given.sum()):,} decisions")
        forced, execute = forced | given, np.where(given, plan.execute, execute)
    decided = np.where(forced, execute, decided)
    asked = np.ones_like(before) if not traceable else decided != before
    return Question(
        base=base,
        setting=setting,
        plan=Plan(execute, forced) if forced.any() else None,
        asked=asked,
        traceable=traceable,
        words=", ".join(words),
    )


def check_asked(
    model: SkipModel,
    *,
    threshold: Thresholds | None,
    budget: float | None,
    sites: Forced | None,
    plan: Plan | None,
) -> None:
    """Raise ``InputError`` unless something is asked, of a model that can be forced."""
    if not isinstance(model.family, CanForce):
        raise InputError(
            f"{model.name} is of the family {model.family.name}, whose decisions cannot be forced, "
            "so nothing can be asked. Take a model with gates or exits."
        )
    asked = [each for each in (threshold, budget, sites, plan) if each is not None and each != {}]
    if not asked or (threshold is not None and budget is not None):
        raise InputError(f"Ask for one thing: {askable(model)}.")
    if sites is not None and plan is not None:
        raise InputError("Give sites or a plan, not both: a plan names its own sites.")


def askable(model: SkipModel) -> str:
    """Return in words what can be asked of a model that can be forced."""
    found = ["sites={(token, site): run}", "plan=skipviz.Plan(...)"]
    if isinstance(model.family, CanMoveThresholds):
        found.append("threshold=...")
    if isinstance(model.family, CanThreshold):
        found.append("budget=...")
    elif model.settings is not None and model.settings.budgets:
        found.append(f"budget=..., one of {model.settings.budgets}")
    return " or ".join([", ".join(found[:-1]), found[-1]])


def _moved(model: SkipModel, trace: Trace, threshold: Thresholds) -> tuple[Setting, Floats, str]:
    """Return a setting with other thresholds, those of each site, and what they are in words."""
    family = model.family
    if not isinstance(family, CanMoveThresholds):
        raise InputError(
            f"threshold={threshold!r} was asked of {model.name}, which is of the family "
            f"{family.name} and has no thresholds to set. Ask for {askable(model)}."
        )
    limits = family.thresholds(model.model)
    if isinstance(threshold, Mapping):
        said = []
        for place, value in threshold.items():
            for site in _places(trace, place):
                limits[site] = float(value)
            said.append(f"threshold {value:g} at {_named(place)}")
        words = _in_few_words(said)
    else:
        limits = [float(threshold)] * len(limits)
        words = f"threshold {threshold:g} at all sites"
    return family.at_thresholds(model.model, limits), np.array(limits), words


def _own_budget(model: SkipModel, budget: float) -> SkipModel:
    settings = model.settings
    if settings is None or budget not in settings.budgets:
        raise InputError(
            f"budget={budget:g} cannot be asked of {model.name}. Ask for {askable(model)}."
        )
    return at_budget(model, budget)


def _forced(model: SkipModel, trace: Trace, sites: Forced) -> tuple[Bools, Bools, str]:
    """Return where a question forces, what, and in words."""
    forced = np.zeros(trace.matrix("exec_count").shape, dtype=bool)
    runs = forced.copy()
    together = _together(model)
    said = []
    for (token, place), run in sites.items():
        if token is not None and not 0 <= token < len(trace):
            raise InputError(f"There is no token {token}: tokens go from 0 to {len(trace) - 1}.")
        rows = slice(None) if token is None else slice(token, token + 1)
        for site in _places(trace, place):
            forced[rows, together.get(site, [site])] = True
            runs[rows, together.get(site, [site])] = run
        whom = "all tokens" if token is None else f"token {token}"
        said.append(f"{_named(place)} {'run' if run else 'skipped'} for {whom}")
    return forced, runs, _in_few_words(said)


def _together(model: SkipModel) -> dict[int, list[int]]:
    family = model.family
    if not isinstance(family, SharesDecisions):
        return {}
    return {site: group for group in family.decided_together(model.model) for site in group}


def _places(trace: Trace, place: Place) -> list[int]:
    """Return the sites that a place names."""
    if place is None:
        return list(range(trace.sites.height))
    column = trace.sites["label" if isinstance(place, str) else "layer"].to_list()
    found = [site for site, name in enumerate(column) if name == place]
    if not found:
        layers = sorted(set(trace.sites["layer"]))
        raise InputError(
            f"There is no site {place!r}. Name a site, such as {trace.sites['label'][0]!r}, or a "
            f"layer that has one, {layers[0]} to {layers[-1]}."
        )
    return found


def _named(place: Place) -> str:
    if place is None:
        return "all sites"
    return place if isinstance(place, str) else f"layer {place}"


def _in_few_words(said: list[str], *, most: int = 3) -> str:
    """Return the first few of several sentences, and how many more there are."""
    more = len(said) - most
    return ", ".join(said[:most]) + (f" and {more:,} more" if more > 0 else "")


def _check_plan(plan: Plan, trace: Trace) -> None:
    shape = trace.matrix("exec_count").shape
    if plan.execute.shape != shape:
        raise InputError(
            f"The plan has shape {plan.execute.shape}; the trace has {shape[0]} tokens and "
            f"{shape[1]} sites."
        )
