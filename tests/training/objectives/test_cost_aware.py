from __future__ import annotations

import pytest
import torch

from skipviz.training.objectives.cost_aware import Price, Thresholds
from skipviz.training.recipe import Recipe

RECIPE = Recipe(
    budget=0.7, steps=6, batch=2, length=12, gate_lr=0.05, adapter_lr=0.05, further_budgets=(0.9,)
)


def test_a_further_budget_finds_its_threshold() -> None:
    scores = torch.linspace(-0.02, 0.02, 1001)
    thresholds = Thresholds({})
    for _ in range(200):
        share = (scores > thresholds.at(0.9)).float().mean().item()
        thresholds.update(0.9, share - 0.9)
    assert thresholds.at(0.9) == pytest.approx(-0.016, abs=2e-4)
    assert thresholds.at(0.8) == 0


def test_the_price_rises_while_too_much_runs_and_is_never_negative() -> None:
    price = Price()
    assert price.update(-0.5) == 0
    first = price.update(0.1)
    assert price.update(0.1) > first > 0


def test_a_price_that_was_low_for_long_rises_at_once() -> None:
    fresh, idle = Price(), Price()
    for _ in range(50):
        idle.update(-0.5)
    assert idle.level == 0
    assert idle.update(0.1) == fresh.update(0.1)
