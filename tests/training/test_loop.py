from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from skipviz.errors import TrainingError
from skipviz.families.gated.modules import (
    gate_parameters,
    gated_units,
    install_gates,
)
from skipviz.training.batch_order import batches
from skipviz.training.collapse import CollapseWatch
from skipviz.training.loop import CHECKPOINT, train
from skipviz.training.objectives.cost_aware import CostSteering
from skipviz.training.objectives.distillation import Distillation
from skipviz.training.recipe import Recipe
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


def objective(
    student: Any, folder: Path, recipe: Recipe, *, watch: CollapseWatch | None = None
) -> Distillation:
    teacher = Teacher(tiny.backbone(seed=0), windows(), folder / "teacher.f16")
    return Distillation(
        student,
        teacher,
        windows(),
        batches=batches(recipe, len(windows()), shuffled=False),
        recipe=recipe,
        config=tiny.GATES,
        steering=CostSteering(recipe),
        watch=watch,
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


@pytest.mark.slow
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


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model = tiny.gated(seed=0)
    for _, _, unit in gated_units(model):
        nn.init.constant_(unit.adapter.up.bias, float("nan"))
    with pytest.raises(
        TrainingError,
        match=r"At step 0 the loss is nan .* and 1\.attn\.adapter\.up\.bias is not finite\. "
        "Lower the learning rates and begin again",
    ):
        run(model, tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert all(not unit.decide._forward_hooks for _, _, unit in gated_units(model))


class Slope(torch.autograd.Function):
    """One, whose gradient is no number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return torch.ones(())

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return torch.tensor(float("nan"))


def test_a_gradient_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    student = tiny.gated(seed=0)
    before = state(student)
    broken = objective(student, tmp_path, RECIPE)
    (_, low), (name, high) = list(broken.parameters.items())[:2]
    total = low.sum() + high.sum()
    broken.loss = lambda step: (Slope.apply(total), {})  # type: ignore[method-assign]
    with pytest.raises(
        TrainingError, match=rf"norm of its gradient nan, and the gradient breaks at {name}\."
    ):
        train(broken, recipe=RECIPE, folder=tmp_path, report=lambda figures: None)
    assert state(student) == before


@pytest.mark.slow
def test_the_log_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny.gated(seed=0), tmp_path, stop_after=4)
    run(tiny.gated(seed=0), tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_is_not_resumed_with_other_things(tmp_path: Path) -> None:
    first = objective(tiny.gated(seed=0), tmp_path, RECIPE)
    about = {"temperature": 0.003}
    train(first, recipe=RECIPE, folder=tmp_path, report=lambda figures: None, about=about)
    again = objective(tiny.gated(seed=0), tmp_path, RECIPE)
    with pytest.raises(ValueError, match=r"was begun with temperature=0\.003"):
        train(
            again, recipe=RECIPE, folder=tmp_path, report=lambda figures: None,
            about={"temperature": 5.0},
        )  # fmt: skip


def test_a_run_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    run(tiny.gated(seed=0), tmp_path)
    other = dataclasses.replace(RECIPE, kl_weight=0.3)
    wanted = objective(tiny.gated(seed=0), tmp_path, other)
    with pytest.raises(ValueError, match=r"was begun with kl_weight=0\.9\. Resume it"):
        train(
            wanted,
            recipe=other,
            folder=tmp_path,
            report=lambda figures: None,
        )


def test_learning_rates_changed_on_the_way_are_told(tmp_path: Path) -> None:
    def go(stop_after: int | None = None, **other: Any) -> dict[str, Any]:
        def report(figures: dict[str, float]) -> None:
            if stop_after is not None and figures["step"] > stop_after:
                raise Interrupted

        recipe = dataclasses.replace(RECIPE, **other)
        wanted = objective(tiny.gated(seed=0), tmp_path, recipe)
        return train(wanted, recipe=recipe, folder=tmp_path, report=report, checkpoint_every=2)

    begun = {"gate_lr": 0.05, "adapter_lr": 0.05, "collapse_after": 200}
    with pytest.raises(Interrupted):
        go(stop_after=2)
    with pytest.raises(Interrupted):
        go(stop_after=3, adapter_lr=0.5)  # of which no step was kept
    with pytest.raises(Interrupted):
        go(stop_after=4, gate_lr=0.01)
    told = {**begun, "changes": [{"step": 2, "gate_lr": 0.01}, {"step": 4, "gate_lr": 0.02}]}
    assert go(gate_lr=0.02) == told
    assert go(gate_lr=0.3) == told  # nothing was left to do at that rate


def test_tensorboard_gets_the_figures_of_every_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figures = run(tiny.gated(seed=0), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("kl")]
    assert shown == pytest.approx([entry["kl"] for entry in figures])


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


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_every_model_of_the_llama_layout_can_be_trained(tmp_path: Path, kind: str) -> None:
    model = tiny.of_kind(kind)
    teacher = Teacher(copy.deepcopy(model), windows(), tmp_path / "teacher.f16")
    install_gates(model, tiny.GATES)
    fit_adapters(model, windows(), batch=4)
    before = state(model)
    reported: list[dict[str, float]] = []
    train(
        Distillation(
            model,
            teacher,
            windows(),
            batches=batches(RECIPE, len(windows()), shuffled=False),
            recipe=RECIPE,
            config=tiny.GATES,
            steering=CostSteering(RECIPE),
        ),
        recipe=RECIPE,
        folder=tmp_path,
        report=reported.append,
    )
    assert reported[-1]["budget"] < 1.1
    after = state(model)
    assert all(before[name] != after[name] for name in before if ".gate." in name)


def test_a_gate_is_not_watched_before_it_has_anything_to_choose(tmp_path: Path) -> None:
    student = tiny.gated(seed=0)
    for _, _, unit in gated_units(student):
        nn.init.constant_(unit.gate.up.bias, 1e6)
    recipe = dataclasses.replace(RECIPE, steps=10, descent=0.5)
    labels = [f"site {number}" for number in range(8)]
    found = objective(student, tmp_path, recipe, watch=CollapseWatch(labels, steps=2))
    for step in range(6):
        found.loss(step)
    with pytest.raises(TrainingError, match="since step 5, 2 steps ago"):
        found.loss(6)


def test_a_run_is_resumed_on_the_windows_it_was_begun_on(tmp_path: Path) -> None:
    student = tiny.gated(seed=0)
    first = objective(student, tmp_path, RECIPE)
    about = {"windows": "runs/mine", "texts": "a"}
    train(first, recipe=RECIPE, folder=tmp_path, report=lambda figures: None, about=about)
    with pytest.raises(ValueError, match="was begun on the windows of runs/mine"):
        train(
            objective(tiny.gated(seed=0), tmp_path, RECIPE), recipe=RECIPE, folder=tmp_path,
            report=lambda figures: None, about={"windows": "", "texts": "b"},
        )  # fmt: skip


@pytest.mark.timeout(60)
def test_a_checkpoint_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny.gated(seed=0), tmp_path, stop_after=4)
    file = tmp_path / CHECKPOINT
    whole = file.read_bytes()
    for put in (
        lambda: file.write_bytes(whole[: len(whole) // 2]),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(save({"a": torch.zeros(1)})),
        lambda: file.unlink() or os.mkfifo(file),
    ):
        put()
        with pytest.raises(TrainingError, match="is damaged and cannot be taken up again"):
            run(tiny.gated(seed=0), tmp_path)
