"""From names of models to what is to be measured: each policy at each budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from skipviz.experiments.frontier import Candidate
from skipviz.experiments.guard import guard
from skipviz.families.gated_modules import set_threshold
from skipviz.models import SkipModel, load
from skipviz.models.load import at_budget, with_policy
from skipviz.models.samples import GatedModelConfig, read_config, sample_folders
from skipviz.texts import Document


def candidates_of(
    names: Sequence[str],
    *,
    policies: Sequence[str] | None = None,
    budgets: Sequence[float] | None = None,
) -> tuple[SkipModel, list[Candidate]]:
    """Return the backbone of models, and each at each of its policies and budgets.

    Parameters
    ----------
    names
        Names or folders of gated models of one backbone.
    policies, budgets
        Those to measure; all that a model has if there are none.

    Raises
    ------
    ValueError
        If the models stand on different backbones, or one lacks a budget asked for.
    """
    candidates, backbones = [], set()
    for name in names:
        config = read_config(sample_folders().get(name, Path(name)))
        backbones.add(config.backbone)
        loaded = load(name)
        for policy in config.policies:
            if policies and policy not in policies:
                continue
            model = with_policy(loaded, policy)
            own = [] if model.settings is None else model.settings.budgets
            for budget in budgets or [float(each) for each in own]:
                at_budget(model, budget)  # says so at once if there is no such budget
                candidates.append(
                    Candidate(
                        model=model,
                        policy=policy,
                        budget=budget,
                        prepare=functools.partial(at_budget, model, budget),
                    )
                )
    if len(backbones) != 1:
        raise ValueError(
            f"The models stand on different backbones: {', '.join(sorted(backbones))}. Evaluate "
            "those of one backbone at a time."
        )
    if not candidates:
        raise ValueError(f"None of the models has a policy {' or '.join(policies or [])}.")
    return load(backbones.pop()), candidates


def guarded_candidates(
    dense: SkipModel,
    candidates: Sequence[Candidate],
    texts: Sequence[Document],
    *,
    limits: Sequence[float],
    progress: Callable[[str], None] = lambda _: None,
) -> list[Candidate]:
    """Return the guarded policy of each model of learned gates, at each limit.

    Parameters
    ----------
    dense
        The backbone.
    candidates
        Among them the models; those of other policies are passed over.
    texts
        Calibration texts.
    limits
        Nats over dense that may be lost; a threshold is sought where a model has none for one.
    progress
        Called with a sentence now and then.
    """
    found = []
    for model in {id(c.model.model): c.model for c in candidates if c.policy == "learned"}.values():
        known = model.settings.guards if isinstance(model.settings, GatedModelConfig) else {}
        for limit in limits:
            threshold = known.get(f"{limit:g}")
            if threshold is None:
                threshold = guard(model, dense, texts, limit=limit, progress=progress).threshold
            found.append(
                Candidate(
                    model=model,
                    policy="guarded",
                    limit=limit,
                    prepare=functools.partial(set_threshold, model.model, threshold),
                )
            )
    return found
