"""A handle on a model: what runs, and what decides in it.

Handles of one model share its weights and nothing else that can change. Each has a module tree of
its own, with its own thresholds, so that setting one never changes what another runs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from skipviz.budgets import budget_key
from skipviz.errors import InputError
from skipviz.families import Family, Setting, Settings
from skipviz.families.causal_lm import tried_as
from skipviz.families.hooks import drop_temporary_hooks
from skipviz.families.powers import CanThreshold
from skipviz.models.spreading import check_not_spread, main_device
from skipviz.text.arguments import checked

Runtime = Literal["masked", "gathered"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SkipModel:
    """A model with what is needed to trace it.

    Attributes
    ----------
    name
        The name or path it was loaded by.
    model, tokenizer
        A transformers causal LM in eval mode, and its tokenizer.
    family
        How its gates are found, read and forced.
    weights_sha256
        SHA-256 of the weights, backbone and gates together.
    budget
        The budget whose thresholds are in use; None where there is none.
    limit
        The nats per token over dense that the guarded policy in use may lose; None under any other.
    policy
        Who decides: ``learned``, ``guarded``, ``static``, ``random``, ``dense``, or a rule of early
        exits.
    settings
        What is written beside its gates; None for a model that was not read from such a folder.
    setting
        What decides: a threshold, rates or a rule as ``settings`` or a caller gave it; None where
        the model is run as it was handed over.
    setup_sha256
        SHA-256 of what else decides the output: the backbone's configuration, tokenizer and code;
        empty where that is not known, as of a model handed over in memory.

    runtime
        How decisions are carried out: ``masked``, where everything is computed and what is skipped
        discarded, or ``gathered``, where only what runs is computed.

    Examples
    --------
    >>> model.policy, model.budget, model.dtype, model.context
    ('learned', 0.8, 'float32', 256)
    """

    name: str
    model: Any
    tokenizer: Any
    family: Family
    weights_sha256: str
    budget: float | None
    policy: str
    limit: float | None = None
    settings: Settings | None = None
    setting: Setting | None = None
    runtime: Runtime = "masked"
    setup_sha256: str = ""

    def __repr__(self) -> str:
        setting = f"budget={self.budget}" if self.limit is None else f"limit={self.limit}"
        return (
            f"SkipModel({self.name!r}, family={self.family.name!r}, policy={self.policy!r}, "
            f"{setting}, dtype={self.dtype!r}, device={str(self.device)!r})"
        )

    @property
    def context(self) -> int:
        """Tokens that the model can see at once."""
        return int(getattr(self.model.config, "max_position_embeddings", 2048))

    @property
    def device(self) -> torch.device:
        """Where the weights are; of a model over several devices, where it takes its input."""
        return main_device(self.model)

    @property
    def dtype(self) -> str:
        """Type of the backbone's weights."""
        return str(self.model.dtype).removeprefix("torch.")

    def under(self, setting: Setting, **says: Any) -> SkipModel:
        """Return a handle on the same weights that runs under another setting.

        Parameters
        ----------
        setting
            What is to decide.
        says
            What the handle says of it: ``budget``, ``limit``, ``policy``, ``settings``. What is
            not given becomes None, but for the policy and the settings, which stay.
        """
        if setting == self.setting:  # which nothing can have changed since
            own = self.model
        else:
            own = sharing_weights(self.model)
            setting.apply(own)
        changed: dict[str, Any] = {"model": own, "setting": setting, "budget": None, "limit": None}
        return replace(self, **changed | says)


def check_evaluating(model: SkipModel) -> None:
    """Check that a model is in eval mode.

    Raises
    ------
    InputError
        If any part of it is in training mode, in which dropout is drawn anew in each run.
    """
    if any(module.training for module in model.model.modules()):
        raise InputError(
            f"{model.name} is in training mode, in which dropout gives other numbers in each run. "
            "Call eval() on its model first."
        )


def sharing_weights(model: nn.Module) -> nn.Module:
    """Return a copy of a model's modules and buffers that shares its parameters.

    Hooks that belong to the model are those of the copy; hooks that are there for the length of a
    run, such as a recorder's, are not.

    Raises
    ------
    InputError
        If the model is spread over several devices, whose modules cannot be copied.
    """
    check_not_spread(model, "Another budget, policy or runtime of a model that is loaded")
    shared: dict[int, Any] = {id(each): each for each in model.parameters()}
    config = getattr(model, "config", None)
    made: nn.Module = copy.deepcopy(model, shared | {id(config): config})
    drop_temporary_hooks(made)
    tried_as(model, made)
    return made


@checked
def at_budget(model: SkipModel, budget: float) -> SkipModel:
    """Return a handle on the same weights at another of the model's budgets.

    ``model`` itself runs on as it did.

    Parameters
    ----------
    model
        A model with gates, as ``load`` returned it.
    budget
        One of the budgets that its thresholds or rates are for, 0 to 1.

    Returns
    -------
    SkipModel
        Another handle; the weights are shared.

    Raises
    ------
    InputError
        If the model has no gates, or none for this budget.

    Examples
    --------
    >>> cheaper = skipviz.at_budget(model, 0.6)
    >>> cheaper.budget, model.budget
    (0.6, 0.8)
    """
    if model.settings is None:
        raise InputError(f"budget={budget} was asked of {model.name}, which has no budgets.")
    setting = model.settings.at(budget, name=model.name)
    # From the guarded policy back to the model's own.
    return model.under(setting, budget=budget, policy=model.settings.policy)


@checked
def with_policy(model: SkipModel, policy: str, *, budget: float | None = None) -> SkipModel:
    """Return a handle on the same weights under another of the model's policies.

    Parameters
    ----------
    model
        A model with gates, as ``load`` returned it.
    policy
        One of the model's policies.
    budget
        One of the policy's budgets; the one in use where the policy has it, else its first.

    Returns
    -------
    SkipModel
        Another handle; the weights are shared.

    Raises
    ------
    InputError
        If the model has no such policy, or the policy no such budget.

    Examples
    --------
    >>> skipviz.with_policy(skipviz.at_limit(model, 0.5), "learned").policy
    'learned'
    """
    if model.settings is None:
        raise InputError(f"policy={policy!r} was asked of {model.name}, which has no policies.")
    wanted = (
        model.settings if model.budget is None else replace(model.settings, budget=model.budget)
    )
    settings = wanted.under(policy, name=model.name)
    chosen = settings.budget if budget is None else budget
    setting = settings.at(chosen, name=model.name)
    return model.under(setting, budget=chosen, policy=policy, settings=settings)


def at_threshold(model: SkipModel, threshold: float, **says: Any) -> SkipModel:
    """Return a handle on the same weights whose gates execute above one threshold.

    Parameters
    ----------
    model
        A model of learned gates.
    threshold
        On the scale of the scores.
    says
        As of ``SkipModel.under``.

    Raises
    ------
    InputError
        If the model does not decide by one threshold.
    """
    if not isinstance(model.family, CanThreshold):
        raise InputError(
            f"{model.name} is of the family {model.family.name}, which has no single threshold to "
            "set; name a model of learned gates."
        )
    return model.under(model.family.threshold(threshold), **says)


@checked
def at_limit(model: SkipModel, limit: float) -> SkipModel:
    """Return a handle on the same weights under the guarded policy.

    Parameters
    ----------
    model
        A model of learned gates, as ``load`` returned it.
    limit
        One of the limits it is guarded for, in nats per token over dense.

    Returns
    -------
    SkipModel
        Another handle; the weights are shared.

    Raises
    ------
    InputError
        If the model is not guarded for this limit.

    Examples
    --------
    >>> careful = skipviz.at_limit(model, 0.5)  # after `skipviz guard FOLDER --limit 0.5`
    >>> careful.policy, careful.limit
    ('guarded', 0.5)
    """
    limits = {} if model.settings is None else model.settings.limits
    if limit not in limits:
        known = f"there are {limits}" if limits else "run `skipviz guard` first"
        raise InputError(f"{model.name} is not guarded for limit={budget_key(limit)}; {known}.")
    return model.under(limits[limit], policy="guarded", limit=limit)
