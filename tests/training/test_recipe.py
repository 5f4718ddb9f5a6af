from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from skipviz.training.recipe import Recipe

RECIPE = Recipe(
    budget=0.7, steps=6, batch=2, length=12, gate_lr=0.05, adapter_lr=0.05, further_budgets=(0.9,)
)


def test_the_budget_falls_and_is_held() -> None:
    recipe = Recipe(budget=0.6, steps=100, descent=0.5)
    assert recipe.budget_at(0) == 1.0
    assert recipe.budget_at(25) == pytest.approx(0.8)
    assert recipe.budget_at(50) == recipe.budget_at(99) == pytest.approx(0.6)


def test_further_budgets_take_every_other_step_in_turn() -> None:
    recipe = Recipe(budget=0.8, further_budgets=(0.9, 0.7))
    assert [recipe.budget_of(step) for step in range(5)] == [0.8, 0.9, 0.8, 0.7, 0.8]
    assert {Recipe(budget=0.8).budget_of(step) for step in range(5)} == {0.8}


@pytest.mark.parametrize("budget", [0.0, 1.0, -1.0])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        dataclasses.replace(RECIPE, budget=budget)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"batch": -2}, "batch=-2 must be at least 1"),
        ({"descent": 1.5}, "descent=1.5 must lie between 0 and 1"),
        ({"ce_weight": 1.5, "kl_weight": -0.5}, "ce_weight=1.5 must lie between 0 and 1"),
        ({"further_budgets": (0.9, 0.7)}, "must differ from each other"),
    ],
)
def test_an_impossible_recipe_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(RECIPE, **changes)
