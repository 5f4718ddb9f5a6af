from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skipviz.families.exits.modules import ExitConfig, exit_parameters, install_exits
from skipviz.training.batch_order import batches
from skipviz.training.loop import train
from skipviz.training.objectives.exits import Translation, fit_translators
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher
from tests import tiny

CONFIG = ExitConfig(exits=(1, 3), adapter_rank=8, head_rank=8)
RECIPE = Recipe(steps=30, batch=2, length=12, adapter_lr=0.01, kl_weight=1.0, ce_weight=0.0)


def windows() -> Tensor:
    return torch.randint(3, 260, (60, 13), generator=torch.Generator().manual_seed(1))


def with_exits() -> Any:
    model = tiny.backbone(seed=0)
    install_exits(model, CONFIG)
    for parameter in exit_parameters(model).values():
        parameter.requires_grad_(True)
    return model


def divergence(model: Any, number: int) -> float:
    """KL from the last layer's prediction to that of an exit, written out."""
    states: list[Tensor] = []
    hook = model.exits.translators[number].register_forward_hook(
        lambda module, args, result: states.append(result)
    )
    model.train()
    with torch.no_grad():
        wanted = model(windows()[:, :-1]).logits.log_softmax(-1)
        found = model.lm_head(model.model.norm(states[0])).log_softmax(-1)
    hook.remove()
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


def test_fitting_and_training_bring_an_exit_nearer_to_the_last_layer(tmp_path: Path) -> None:
    model = with_exits()
    untrained = [divergence(model, number) for number in range(2)]
    fit_translators(model, windows(), batch=10)
    fitted = [divergence(model, number) for number in range(2)]
    teacher = Teacher(tiny.backbone(seed=0), windows(), tmp_path / "states")
    train(
        Translation(
            model,
            teacher,
            windows(),
            batches=batches(RECIPE, len(windows()), shuffled=False),
            recipe=RECIPE,
        ),
        recipe=RECIPE,
        folder=tmp_path,
        report=lambda figures: None,
    )
    trained = [divergence(model, number) for number in range(2)]
    for first, second, third in zip(untrained, fitted, trained, strict=True):
        assert third < second < first


def test_a_translator_of_full_rank_is_the_least_squares_map() -> None:
    model = tiny.backbone(seed=0)
    install_exits(model, ExitConfig(exits=(3,), adapter_rank=32, head_rank=8))
    fit_translators(model, windows(), batch=7)
    with torch.no_grad():
        states = tiny.backbone(seed=0)(windows(), output_hidden_states=True).hidden_states
        inputs = states[4].flatten(0, 1)
        seen: list[Tensor] = []
        dense = tiny.backbone(seed=0)
        dense.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        dense(windows())
        last = seen[0].flatten(0, 1)
        design = torch.cat([inputs, torch.ones(len(inputs), 1)], 1).double()
        best = design @ torch.linalg.lstsq(design, last.double()).solution
        found = model.exits.translators[0](inputs)
    least = (best - last).square().mean()
    assert (found - last).square().mean() < 1.02 * least + 1e-6
