"""From names of models to what is to be measured: each policy at each budget."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence

from skipviz.errors import InputError
from skipviz.evaluation.card import TRAINING
from skipviz.evaluation.frontier import Candidate
from skipviz.evaluation.guarding import guard
from skipviz.families.gated.modules import set_threshold
from skipviz.models import SkipModel, load
from skipviz.models.loading import at_budget, with_policy
from skipviz.models.samples import (
    ExitModelConfig,
    GatedModelConfig,
    ModelConfig,
    model_folder,
    read_config,
)
from skipviz.text.documents import Document


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

    Returns
    -------
    tuple
        The backbone, and the candidates, each once. A model's policies that do not have a budget
        asked for are passed over if another has it.

    Raises
    ------
    ValueError
        If the models stand on different backbones, a policy is no model's, or a budget asked for
        is none of a model's.
    """
    candidates, backbones = [], set()
    _check_policies(names, policies)
    for name in dict.fromkeys(names):
        config = read_config(model_folder(name))
        backbones.add(config.backbone)
        loaded = load(name)
        has: dict[float, None] = {}
        for policy in config.policies:
            if policies and policy not in policies:
                continue
            model = with_policy(loaded, policy)
            own = [] if model.settings is None else [float(each) for each in model.settings.budgets]
            has |= dict.fromkeys(own)
            for budget in [b for b in dict.fromkeys(budgets or own) if b in own]:
                candidates.append(
                    Candidate(
                        model=model,
                        policy=policy,
                        budget=budget,
                        setting=_setting(config, policy, budget),
                        prepare=functools.partial(at_budget, model, budget),
                    )
                )
        lacking = [f"{budget:g}" for budget in budgets or [] if budget not in has]
        if has and lacking:
            raise InputError(
                f"{name} is not calibrated for a budget of {', '.join(lacking)} under "
                f"{', '.join(policies or config.policies)}; there are "
                f"{', '.join(f'{budget:g}' for budget in has)}."
            )
    if len(backbones) != 1:
        raise InputError(
            f"The models stand on different backbones: {', '.join(sorted(backbones))}. Evaluate "
            "those of one backbone at a time."
        )
    return load(backbones.pop()), candidates


def training_tokens(name: str) -> int | None:
    """Return how many tokens a model's gates learnt from, in all its runs; None if not recorded."""
    path = model_folder(name) / TRAINING
    if not path.exists():
        return None
    return sum(int(run["training_tokens"]) for run in json.loads(path.read_text(encoding="utf-8")))


def _check_policies(names: Sequence[str], policies: Sequence[str] | None) -> None:
    # The dense model is always measured, and the guarded policy is asked for by its limit.
    known = {"dense", "guarded"}
    for name in names:
        known |= set(read_config(model_folder(name)).policies)
    unknown = sorted(set(policies or []) - known)
    if unknown:
        raise InputError(
            f"No model has a policy {', '.join(unknown)}; there are {', '.join(sorted(known))}."
        )


def _setting(config: ModelConfig, policy: str, budget: float) -> str:
    """Return the threshold or the rates of a budget, as written."""
    key = f"{budget:g}"
    if isinstance(config, ExitModelConfig):
        return repr(config.thresholds[policy][key])
    return repr(config.rates[key] if config.rates else config.thresholds[key])


def guarded_candidates(
    dense: SkipModel,
    candidates: Sequence[Candidate],
    texts: Sequence[Document],
    *,
    limits: Sequence[float],
    progress: Callable[[str], None] = lambda _: None,
) -> list[Candidate]:
    """Return the guarded policy of models of learned gates, at each limit.

    Finding a threshold takes many runs over the calibration texts. So a limit that some of the
    models have been guarded for is measured on these alone; it is sought for all only where none
    has.

    Parameters
    ----------
    dense
        The backbone.
    candidates
        Among them the models; those of other policies are passed over.
    texts
        Calibration texts.
    limits
        Nats over dense that may be lost.
    progress
        Called with a sentence now and then.
    """
    models = {id(c.model.model): c.model for c in candidates if c.policy == "learned"}.values()
    if limits and not models:
        raise InputError(
            "Guarding needs learned gates, and none of these models has them; name one, such as "
            "smollm2-gated, or leave out the limit."
        )
    found = []
    for limit in dict.fromkeys(limits):
        kept = {model: _kept(model, limit) for model in models}
        anyone = any(threshold is not None for threshold in kept.values())
        for model, known in kept.items():
            if known is None and anyone:
                progress(
                    f"{model.name} keeps no threshold for {limit:g} nats and is passed over; "
                    f"`skipviz guard {model.name} --limit {limit:g}` finds one."
                )
                continue
            threshold = known
            if threshold is None:
                threshold = guard(model, dense, texts, limit=limit, progress=progress).threshold
            found.append(
                Candidate(
                    model=model,
                    policy="guarded",
                    limit=limit,
                    setting=repr(threshold),
                    prepare=functools.partial(set_threshold, model.model, threshold),
                )
            )
    return found


def _kept(model: SkipModel, limit: float) -> float | None:
    """Return the threshold that a model was guarded at for a limit, if it was."""
    if not isinstance(model.settings, GatedModelConfig):
        return None
    return model.settings.guards.get(f"{limit:g}")
