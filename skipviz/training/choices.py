"""Which sites a policy of fixed rates runs: dropped for all tokens, or at the rates of gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from skipviz.analysis.flops import execution_rates
from skipviz.budgets import budget_key
from skipviz.errors import InputError
from skipviz.families.gated.modules import GatedConfig
from skipviz.models import at_budget, load
from skipviz.progress import Say
from skipviz.recording.tracing import trace
from skipviz.text.documents import Document
from skipviz.training.recipe import Recipe
from skipviz.training.selection import block_influence, greedy_order, lifted, rates_of, site_savings

GREEDY_TOKENS = 2048
INFLUENCE_TOKENS = 32768
"""Tokens of training text that sites are chosen by."""

Choice = Callable[[Any, torch.Tensor], dict[str, list[float]]]


def static_choice(
    how: str, recipe: Recipe, config: GatedConfig, *, length: int, say: Say
) -> Choice:
    """Return a choice of sites to drop for every token, by ``block-influence`` or ``greedy``.

    ``length`` is that of the texts which are to meet the budgets.
    """

    def choose(student: Any, windows: torch.Tensor) -> dict[str, list[float]]:
        savings = site_savings(student, config, length=length)
        if how == "greedy":
            some = _beginning(windows, GREEDY_TOKENS)
            order = greedy_order(
                student, some, savings=savings, budget=min(recipe.budgets),
                report=lambda site, loss: say(f"Dropped site {site}: loss {loss:.3f}"),
            )  # fmt: skip
        else:
            influence = block_influence(student, _beginning(windows, INFLUENCE_TOKENS))
            order = sorted(range(len(influence)), key=lambda site: influence[site])
        return {budget_key(b): rates_of(order, savings, b) for b in recipe.budgets}

    return choose


def matched_choice(
    model: str | Path,
    recipe: Recipe,
    config: GatedConfig,
    texts: Sequence[Document],
    *,
    length: int,
) -> Choice:
    """Return the rates at which another model's gates execute each site, at equal budget.

    ``length`` is that of the texts which are to meet the budgets.
    """
    like = load(model)
    for budget in recipe.budgets:
        at_budget(like, budget)  # says now, and not after an hour, which budgets there are
    layers = {site.layer for site in like.family.sites(like.model)}
    if layers != set(range(config.first_layer, config.last_layer + 1)):
        raise InputError(
            f"{model} does not gate layers {config.first_layer} to {config.last_layer}, as the "
            "random policy is to; name gates of this backbone with --like."
        )

    def choose(student: Any, windows: torch.Tensor) -> dict[str, list[float]]:
        savings = site_savings(student, config, length=length)
        rates = {}
        for budget in recipe.budgets:
            seen = trace(at_budget(like, budget), texts, statistics=False)
            matched = execution_rates(seen)["rate"].to_list()
            rates[budget_key(budget)] = lifted(matched, savings, budget)
        return rates

    return choose


def _beginning(windows: torch.Tensor, tokens: int) -> torch.Tensor:
    return windows[: max(1, tokens // (windows.shape[1] - 1))]
