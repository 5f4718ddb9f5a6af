"""From names of models to what is to be measured: each policy at each budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from skipviz.errors import InputError, ModelError
from skipviz.evaluation.card import TRAINING
from skipviz.evaluation.guarding import guard
from skipviz.folders import model_folder
from skipviz.models import (
    SkipModel,
    at_limit,
    at_threshold,
    load,
    read_settings,
    with_policy,
)
from skipviz.models.folder_checks import read_json
from skipviz.progress import Say, say_nothing
from skipviz.text.documents import Document


def candidates_of(
    names: Sequence[str],
    *,
    policies: Sequence[str] | None = None,
    budgets: Sequence[float] | None = None,
) -> tuple[SkipModel, list[SkipModel]]:
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
        is not one of a model's.
    """
    candidates: list[SkipModel] = []
    backbones: set[str] = set()
    _check_policies(names, policies)
    for name in dict.fromkeys(names):
        settings = read_settings(model_folder(name))
        backbones.add(settings.backbone)
        loaded = load(name)
        has: dict[float, None] = {}
        for policy in settings.policies:
            if policies and policy not in policies:
                continue
            own = settings.under(policy, name=str(name)).budgets
            has |= dict.fromkeys(own)
            for budget in [b for b in dict.fromkeys(budgets or own) if b in own]:
                candidates.append(with_policy(loaded, policy, budget=budget))
        lacking = [f"{budget:g}" for budget in budgets or [] if budget not in has]
        if has and lacking:
            raise InputError(
                f"{name} is not calibrated for a budget of {', '.join(lacking)} under "
                f"{', '.join(policies or settings.policies)}; there are "
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
    try:
        return sum(int(run["training_tokens"]) for run in read_json(path))
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} does not say how many tokens each training run had ({error}). Delete it, or "
            "train the gates again."
        ) from error


def _check_policies(names: Sequence[str], policies: Sequence[str] | None) -> None:
    # The dense model is always measured, and the guarded policy is asked for by its limit.
    known = {"dense", "guarded"}
    for name in names:
        known |= set(read_settings(model_folder(name)).policies)
    unknown = sorted(set(policies or []) - known)
    if unknown:
        raise InputError(
            f"No model has a policy {', '.join(unknown)}; there are {', '.join(sorted(known))}."
        )


def guarded_candidates(
    dense: SkipModel,
    candidates: Sequence[SkipModel],
    texts: Sequence[Document],
    *,
    limits: Sequence[float],
    say: Say = say_nothing,
    stop: threading.Event | None = None,
) -> list[SkipModel]:
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
    say
        Called with a sentence now and then.
    stop
        Set it from another thread to stop.
    """
    models = {(c.name, c.weights_sha256): c for c in candidates if c.policy == "learned"}.values()
    if limits and not models:
        raise InputError(
            "Guarding needs learned gates, and no model here has them; name one, such as "
            "smollm2-gated, or leave out the limit."
        )
    found: list[SkipModel] = []
    for limit in dict.fromkeys(limits):
        guarded = [model for model in models if _is_guarded(model, limit)]
        for model in models:
            if model in guarded:
                kept = at_limit(model, limit)
            elif guarded:
                say(
                    f"{model.name} keeps no threshold for {limit:g} nats and is passed over; "
                    f"`skipviz guard {model.name} --limit {limit:g}` finds one."
                )
                continue
            else:
                made = guard(model, dense, texts, limit=limit, say=say, stop=stop)
                kept = at_threshold(model, made.threshold, policy="guarded", limit=limit)
            found.append(kept)
    return found


def _is_guarded(model: SkipModel, limit: float) -> bool:
    return model.settings is not None and limit in model.settings.limits
