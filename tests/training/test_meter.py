from __future__ import annotations

import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.families.gated.modules import gated_units
from skipviz.text.spans import encode
from skipviz.training.meter import BudgetMeter
from skipviz.training.recipe import Recipe
from tests import tiny

RECIPE = Recipe(
    budget=0.7, steps=6, batch=2, length=12, gate_lr=0.05, adapter_lr=0.05, further_budgets=(0.9,)
)


def windows(count: int = 12, length: int = 13) -> Tensor:
    return torch.randint(3, 260, (count, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [False, True])
def test_the_meter_counts_what_a_trace_counts(gated: skipviz.SkipModel, training: bool) -> None:
    traced = skipviz.trace(gated, tiny.TEXT)
    meter = BudgetMeter(gated.model, tiny.GATES)
    ids = torch.tensor([encode(gated.tokenizer, tiny.TEXT).ids])
    gated.model.train(training)
    with meter.listening():
        gated.model(ids)
    budget, rates = meter.read()
    assert budget.item() == pytest.approx(realised_budget(traced), rel=1e-5)
    assert rates.tolist() == pytest.approx(traced.matrix("exec_count").mean(axis=0).tolist())
    assert 0.2 < rates.mean().item() < 0.98


def test_a_meter_leaves_no_hook(gated: skipviz.SkipModel) -> None:
    with BudgetMeter(gated.model, tiny.GATES).listening():
        gated.model(windows())
    assert all(not unit.decide._forward_hooks for _, _, unit in gated_units(gated.model))


def test_the_budget_pulls_at_the_gates(gated: skipviz.SkipModel) -> None:
    meter = BudgetMeter(gated.model, tiny.GATES)
    gated.model.train()
    with meter.listening():
        gated.model(windows())
    meter.read()[0].backward()
    for _, _, unit in gated_units(gated.model):
        assert unit.gate.up.bias.grad is not None
        assert unit.gate.up.bias.grad.item() > 0  # a higher score costs more


def test_a_gate_that_always_runs_reads_exactly_one(gated: skipviz.SkipModel) -> None:
    for _, _, unit in gated_units(gated.model):
        torch.nn.init.zeros_(unit.gate.up.weight)
        torch.nn.init.constant_(unit.gate.up.bias, 0.0123)
    meter = BudgetMeter(gated.model, tiny.GATES)
    gated.model.train()
    for seed in range(20):
        torch.manual_seed(seed)
        torch.nn.init.constant_(unit.gate.up.bias, torch.rand(()).item())
        with meter.listening():
            gated.model(windows())
        assert set(meter.read()[1].tolist()) == {1.0}
