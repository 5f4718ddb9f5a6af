from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import skipviz
from skipviz.analysis.cost import realised_budget
from skipviz.families.gated_modules import gate_parameters, gated_units, straight_through
from skipviz.spans import encode
from skipviz.training.cost import CostSteering, Price, Thresholds
from skipviz.training.distillation import Distillation
from skipviz.training.loop import train
from skipviz.training.meter import BudgetMeter
from skipviz.training.recipe import Recipe, budget_at
from skipviz.training.teacher import Teacher
from skipviz.training.warmstart import fit_adapters
from tests import tiny

RECIPE = Recipe(
    budget=0.7, steps=6, batch=2, length=12, gate_lr=0.05, adapter_lr=0.05, further_budgets=(0.9,)
)


class Interrupted(Exception):
    pass


def windows(count: int = 12, length: int = 13) -> Tensor:
    return torch.randint(3, 260, (count, length), generator=torch.Generator().manual_seed(1))


def objective(student: Any, folder: Path, recipe: Recipe) -> Distillation:
    teacher = Teacher(tiny.backbone(seed=0), windows(), folder / "teacher.f16")
    return Distillation(
        student,
        teacher,
        windows(),
        recipe=recipe,
        config=tiny.GATES,
        steering=CostSteering(recipe),
    )


def run(student: Any, folder: Path, *, stop_after: int | None = None) -> list[dict[str, float]]:
    reported: list[dict[str, float]] = []

    def report(figures: dict[str, float]) -> None:
        if stop_after is not None and figures["step"] > stop_after:
            raise Interrupted
        reported.append(figures)

    folder.mkdir(exist_ok=True)
    train(
        objective(student, folder, RECIPE),
        recipe=RECIPE,
        folder=folder,
        report=report,
        checkpoint_every=3,
    )
    return reported


def state(model: nn.Module) -> dict[str, bytes]:
    return {
        name: value.detach().numpy().tobytes() for name, value in gate_parameters(model).items()
    }


@pytest.mark.parametrize("training", [False, True])
def test_the_meter_counts_what_a_trace_counts(gated: skipviz.SkipModel, training: bool) -> None:
    traced = skipviz.trace(gated, tiny.TEXT)
    meter = BudgetMeter(gated.model, tiny.GATES)
    ids = torch.tensor([encode(gated.tokenizer, tiny.TEXT).ids])
    gated.model.train(training)
    gated.model(ids)
    budget, rates = meter.read()
    assert budget.item() == pytest.approx(realised_budget(traced), rel=1e-5)
    assert rates.tolist() == pytest.approx(traced.matrix("exec_count").mean(axis=0).tolist())
    assert 0.2 < rates.mean().item() < 0.98


def test_a_closed_meter_hears_nothing(gated: skipviz.SkipModel) -> None:
    meter = BudgetMeter(gated.model, tiny.GATES)
    meter.close()
    assert all(not unit.decide._forward_hooks for _, _, unit in gated_units(gated.model))


def test_straight_through_is_hard_forward_and_sigmoid_backward() -> None:
    margin = torch.linspace(-3, 3, 13).reshape(1, 13).requires_grad_()
    execute = margin > 0
    hard = straight_through(margin, execute)
    assert torch.allclose(hard, execute.float(), atol=1e-6)
    weights = torch.arange(13.0).reshape(1, 13)
    (hard * weights).sum().backward()
    soft = torch.sigmoid(margin.detach())
    assert margin.grad is not None
    assert torch.allclose(margin.grad, weights * soft * (1 - soft), atol=1e-6)


def test_the_budget_pulls_at_the_gates(gated: skipviz.SkipModel) -> None:
    meter = BudgetMeter(gated.model, tiny.GATES)
    gated.model.train()
    gated.model(windows())
    meter.read()[0].backward()
    for _, _, unit in gated_units(gated.model):
        assert unit.gate.up.bias.grad is not None
        assert unit.gate.up.bias.grad.item() > 0  # a higher score costs more


def test_an_interrupted_run_ends_bit_for_bit_as_one_in_one_go(tmp_path: Path) -> None:
    whole, parts = tiny.gated(seed=0), tiny.gated(seed=0)
    figures = run(whole, tmp_path / "whole")
    assert [entry["step"] for entry in figures] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Interrupted):
        run(parts, tmp_path / "parts", stop_after=4)
    resumed = tiny.gated(seed=5)  # everything trained comes from the checkpoint
    resumed.load_state_dict(
        {k: v for k, v in tiny.gated(seed=0).state_dict().items() if ".gate." not in k},
        strict=False,
    )
    later = run(resumed, tmp_path / "parts")
    assert [entry["step"] for entry in later] == [4, 5, 6]
    assert state(resumed) == state(whole)
    for one, other in zip(figures[3:], later, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_training_moves_gates_and_adapters_and_nothing_else(tmp_path: Path) -> None:
    model, before = tiny.gated(seed=0), tiny.gated(seed=0)
    run(model, tmp_path)
    trained = {id(value) for value in gate_parameters(model).values()}
    for (name, value), (_, old) in zip(
        model.named_parameters(), before.named_parameters(), strict=True
    ):
        assert torch.equal(value, old) == (id(value) not in trained), name
    assert not model.training
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model = tiny.gated(seed=0)
    for _, _, unit in gated_units(model):
        nn.init.constant_(unit.adapter.up.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="The loss is nan at step 0"):
        run(model, tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert all(not unit.decide._forward_hooks for _, _, unit in gated_units(model))


def test_the_budget_falls_and_is_held() -> None:
    recipe = Recipe(budget=0.6, steps=100, descent=0.5)
    assert budget_at(0, recipe) == 1.0
    assert budget_at(25, recipe) == pytest.approx(0.8)
    assert budget_at(50, recipe) == budget_at(99, recipe) == pytest.approx(0.6)


def test_further_budgets_take_every_other_step_in_turn() -> None:
    recipe = Recipe(budget=0.8, further_budgets=(0.9, 0.7))
    assert [recipe.budget_of(step) for step in range(5)] == [0.8, 0.9, 0.8, 0.7, 0.8]
    assert {Recipe(budget=0.8).budget_of(step) for step in range(5)} == {0.8}


def test_a_further_budget_finds_its_threshold() -> None:
    scores = torch.linspace(-0.02, 0.02, 1001)
    thresholds = Thresholds({})
    for _ in range(200):
        share = (scores > thresholds.at(0.9)).float().mean().item()
        thresholds.update(0.9, share - 0.9)
    assert thresholds.at(0.9) == pytest.approx(-0.016, abs=2e-4)
    assert thresholds.at(0.8) == 0


def test_a_run_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    run(tiny.gated(seed=0), tmp_path)
    other = dataclasses.replace(RECIPE, gate_lr=0.1)
    wanted = objective(tiny.gated(seed=0), tmp_path, other)
    with pytest.raises(ValueError, match=r"was begun with gate_lr=0\.05\. Resume it"):
        train(
            wanted,
            recipe=other,
            folder=tmp_path,
            report=lambda figures: None,
        )


def test_the_price_rises_while_too_much_runs_and_is_never_negative() -> None:
    price = Price()
    assert price.update(-0.5) == 0
    first = price.update(0.1)
    assert price.update(0.1) > first > 0


@pytest.mark.parametrize("budget", [0.0, 1.0, -1.0])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        dataclasses.replace(RECIPE, budget=budget)


class Affine(nn.Module):
    """A unit that is what an adapter of rank two can be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, 2, bias=False)
        self.up = nn.Linear(2, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.up(self.down(hidden_states))  # type: ignore[no-any-return]


def test_warm_start_finds_a_unit_of_low_rank() -> None:
    model = tiny.gated(seed=0)
    planted = [unit for _, kind, unit in gated_units(model) if kind == "mlp"]
    for unit in planted:
        unit.unit = Affine(32)
        nn.init.normal_(unit.unit.up.bias)
    fit_adapters(model, windows(200), batch=20)
    for unit in planted:
        seen: list[Tensor] = []
        handle = unit.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            model(windows(20))
            wanted, found = unit.unit(seen[0]), unit.adapter(seen[0])
        handle.remove()
        assert (found - wanted).norm() < 0.02 * wanted.norm()
    assert all(not unit.decide._forward_hooks for _, _, unit in gated_units(model))


def test_tensorboard_gets_the_figures_of_every_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figures = run(tiny.gated(seed=0), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("kl")]
    assert shown == pytest.approx([entry["kl"] for entry in figures])
