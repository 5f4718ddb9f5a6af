from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import skipviz
from skipviz.analysis.flops import execution_rates
from skipviz.errors import TrainingError
from skipviz.families.gated.modules import gate_parameters, gated_units
from skipviz.training.batch_order import batches
from skipviz.training.collapse import CollapseWatch
from skipviz.training.loop import train
from skipviz.training.objectives.policy_gradient import PolicyGradient
from skipviz.training.recipe import Recipe
from tests import tiny

LABELS = [f"site {number}" for number in range(8)]


def windows(count: int) -> Tensor:
    return torch.randint(3, 260, (count, 13), generator=torch.Generator().manual_seed(1))


def objective(model: Any, recipe: Recipe, *, temperature: float = 0.5) -> PolicyGradient:
    return PolicyGradient(
        model,
        windows(recipe.steps * recipe.batch),
        batches=batches(recipe, recipe.steps * recipe.batch, shuffled=False),
        recipe=recipe,
        config=tiny.GATES,
        temperature=temperature,
        thresholds={recipe.budget: 0.0},
        watch=CollapseWatch(LABELS, steps=recipe.collapse_after),
    )


def rates(model: Any) -> list[float]:
    traced = skipviz.trace(skipviz.from_parts(model, tiny.tokenizer()), tiny.TEXT)
    return execution_rates(traced)["rate"].to_list()


def useless(model: Any, site: int) -> None:
    """Make the adapter of a site do exactly what its unit does: nothing."""
    unit = [each for _, _, each in gated_units(model)][site]
    for parameter in [*unit.unit.parameters(), *unit.adapter.parameters()]:
        torch.nn.init.zeros_(parameter)


@pytest.mark.slow
def test_a_unit_that_does_nothing_is_switched_off_and_only_gates_learn(tmp_path: Path) -> None:
    model = tiny.gated(seed=0)
    useless(model, 3)
    unit = [each for _, _, each in gated_units(model)][3]
    torch.nn.init.zeros_(unit.gate.up.weight)
    torch.nn.init.constant_(unit.gate.up.bias, 0.2)
    before = {name: value.clone() for name, value in gate_parameters(model).items()}
    assert rates(model)[3] == 1
    recipe = Recipe(budget=0.7, steps=60, batch=8, length=12, gate_lr=0.03, price=200.0)
    train(objective(model, recipe), recipe=recipe, folder=tmp_path, report=lambda figures: None)
    assert rates(model)[3] == 0
    for name, value in gate_parameters(model).items():
        assert torch.equal(value, before[name]) == (".adapter." in name)


def test_the_gradient_is_that_of_the_expected_reward() -> None:
    """One site open to chance, one token: the expectation has two terms and can be written out."""
    model = tiny.gated(seed=0)
    for number, (_, _, unit) in enumerate(gated_units(model)):
        torch.nn.init.zeros_(unit.gate.up.weight)
        torch.nn.init.constant_(unit.gate.up.bias, 0.3 if number == 2 else 60.0)
    recipe = Recipe(budget=0.7, steps=1, batch=400, length=1, price=0.0)
    ids = windows(1)[:, :2].expand(400, 2)
    found = PolicyGradient(
        model, ids, batches=torch.arange(400).view(1, 400), recipe=recipe, config=tiny.GATES,
        temperature=0.5, thresholds={0.7: 0.0}, watch=CollapseWatch(LABELS, steps=0),
    )  # fmt: skip
    loss, figures = found.loss(0)
    loss.backward()
    target = [unit for _, _, unit in gated_units(model)][2]
    assert target.gate.up.bias.grad is not None
    with torch.no_grad():
        losses = []
        for bias in (60.0, -60.0):
            target.gate.up.bias.fill_(bias)
            logits = model(ids[:1, :1]).logits[0]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item())
    p = torch.sigmoid(torch.tensor(0.3 / 0.5)).item()
    slope = (losses[0] - losses[1]) * p * (1 - p) / 0.5  # of the expected loss, in the bias
    scale = figures["advantage_variance"] ** 0.5
    assert target.gate.up.bias.grad.item() * scale == pytest.approx(slope, rel=0.25)


def test_the_same_seed_draws_the_same() -> None:
    recipe = Recipe(budget=0.7, steps=1, batch=2, length=12, price=0.4, seed=3)
    one = objective(tiny.gated(seed=0), recipe).loss(0)
    other = objective(tiny.gated(seed=0), recipe).loss(0)
    assert one[0].item() == other[0].item()
    assert 0 < one[1]["drawn_otherwise"] < 1
    assert one[1]["reward"] != one[1]["greedy_reward"]


def test_a_policy_that_collapses_is_stopped() -> None:
    model = tiny.gated(seed=0)
    unit = [unit for _, _, unit in gated_units(model)][3]
    torch.nn.init.constant_(unit.gate.up.bias, 1e6)
    found = objective(model, Recipe(budget=0.7, steps=3, batch=2, length=12, collapse_after=2))
    found.loss(0)
    with pytest.raises(TrainingError, match="The gate of site 3 runs for every token"):
        found.loss(1)
