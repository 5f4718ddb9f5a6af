"""The loop of training: distillation and cross-entropy, a budget, checkpoints, exact resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from skipviz.families.gated_modules import GatedConfig, gate_parameters
from skipviz.training.losses import distillation_loss
from skipviz.training.meter import BudgetMeter
from skipviz.training.recipe import Recipe, budget_at

CHECKPOINT = "checkpoint.safetensors"
LR_FLOOR = 0.01
"""Where the cosine of the learning rates ends, as a share of their peak."""


@runtime_checkable
class Steering(Protocol):
    """Brings a model to the budgets of a recipe, step by step."""

    def prepare(self, model: Any, step: int) -> None:
        """Set what decides in this step."""

    def price(self, step: int, excess: float) -> float:
        """Take the realised budget's excess over its target and return the price, in nats."""

    def finish(self, model: Any) -> None:
        """Leave the model at the main budget."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold, fit for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


def train(
    student: Any,
    teacher: Any,
    windows: Int[Tensor, "n t"],
    *,
    recipe: Recipe,
    config: GatedConfig,
    steering: Steering,
    folder: Path,
    report: Callable[[dict[str, float]], None],
    checkpoint_every: int = 50,
) -> None:
    """Train what a model can learn, in place, resuming from ``folder`` if it holds a checkpoint.

    Parameters
    ----------
    student
        A gated model whose adapters have been warm-started.
    teacher
        The dense model.
    windows
        Token ids, at least ``recipe.steps * recipe.batch`` rows.
    recipe, config
        How to train, and the shape of the gates.
    steering
        Brings the model to its budgets.
    folder
        Where checkpoints and the log go.
    report
        Called after each step with its figures.
    checkpoint_every
        Steps between checkpoints.

    Raises
    ------
    FloatingPointError
        If the loss is not a number; the last checkpoint is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(student.parameters()).device
    parameters = gate_parameters(student)
    optimizer = _optimizer(parameters, recipe)
    start = _restore(folder, parameters, optimizer, steering, recipe)
    meter = BudgetMeter(student, config)
    student.train()
    try:
        for step in range(start, recipe.steps):
            began = time.monotonic()
            rows = windows[step * recipe.batch : (step + 1) * recipe.batch].to(device)
            scale = _learning_rate_scale(step, recipe)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
            with torch.no_grad():
                teacher_logits = teacher(rows[:, :-1], use_cache=False).logits
            steering.prepare(student, step)
            logits = student(rows[:, :-1], use_cache=False).logits
            objective, divergence, cross_entropy = distillation_loss(
                logits.flatten(0, 1),
                teacher_logits.flatten(0, 1),
                rows[:, 1:].flatten(),
                kl_weight=recipe.kl_weight,
                ce_weight=recipe.ce_weight,
            )
            realised, rates = meter.read()
            target = budget_at(step, recipe)
            nats = steering.price(step, realised.item() - target)
            loss = objective + nats * realised
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"The loss is {loss.item()} at step {step}. The checkpoint in {folder} is "
                    "from before; lower the learning rates and resume."
                )
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            figures = {
                "step": step + 1,
                "kl": divergence.item(),
                "ce": cross_entropy.item(),
                "budget": realised.item(),
                "target": target,
                "price": nats,
                "grad_norm": norm.item(),
                "rate_min": rates.min().item(),
                "rate_max": rates.max().item(),
                "seconds": time.monotonic() - began,
            }
            report(figures)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(figures) + "\n")
            if (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps:
                _checkpoint(folder, parameters, optimizer, steering, step + 1, recipe)
    finally:
        meter.close()
        steering.finish(student)
        student.eval()


def _optimizer(parameters: dict[str, nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    groups = [
        {
            "params": [value for name, value in parameters.items() if f".{part}." in name],
            "peak": rate,
            "lr": rate,
        }
        for part, rate in (("gate", recipe.gate_lr), ("adapter", recipe.adapter_lr))
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)


def _learning_rate_scale(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / 20)
    return warm * (LR_FLOOR + (1 - LR_FLOOR) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _checkpoint(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    steering: Steering,
    step: int,
    recipe: Recipe,
) -> None:
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in optimizer.state[value].items():
            tensors[f"{key}/{name}"] = state
    metadata = {
        "step": str(step),
        "steering": json.dumps(steering.state()),
        "recipe": json.dumps(asdict(recipe)),
    }
    temporary = folder / "checkpoint.tmp"
    save_file(tensors, temporary, metadata=metadata)
    temporary.replace(folder / CHECKPOINT)


def _restore(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    steering: Steering,
    recipe: Recipe,
) -> int:
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    _check_recipe(json.loads(metadata["recipe"]), recipe, folder)
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"parameter/{name}"])
            optimizer.state[value] = {
                key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
    steering.restore(json.loads(metadata["steering"]))
    return int(metadata["step"])


def _check_recipe(begun: dict[str, Any], recipe: Recipe, folder: Path) -> None:
    asked = json.loads(json.dumps(asdict(recipe)))
    other = [f"{name}={begun[name]}" for name in asked if begun.get(name) != asked[name]]
    if other:
        raise ValueError(
            f"The run in {folder} was begun with {', '.join(other)}. Resume it with the same, "
            "or train into another folder."
        )
