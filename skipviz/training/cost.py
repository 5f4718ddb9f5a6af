"""Cost-aware training: distillation, cross-entropy and a price for compute that meets a budget.

The budget counts what evaluation would run: hard decisions, with the gradient of the sigmoid.
Noise in training would let the noisy decisions meet a budget that the deterministic ones miss.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from skipviz.families.gated_modules import (
    GatedConfig,
    gate_parameters,
    gated_units,
    set_threshold,
    straight_through,
)
from skipviz.flops import UnitFlops, adapter_flops, gate_flops
from skipviz.training.losses import distillation_loss


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run of training depends on, beside model and texts.

    Attributes
    ----------
    budget
        Share of dense attention and MLP FLOPs to reach, 0 to 1, over all layers.
    further_budgets
        Budgets that the same gates are to serve with other thresholds: every other step runs at
        one of them in turn, so that the adapters see their decisions too.
    steps
        Optimiser steps.
    batch, length
        Windows a step, and tokens in a window.
    gate_lr, adapter_lr
        Peak learning rates of AdamW.
    kl_weight, ce_weight
        Weights of the divergence from the dense model and of the cross-entropy with the text.
    descent
        Share of the steps over which the budget falls from 1 to its target.
    price
        Price to start from, in nats for the whole dense budget; 0 for fresh gates, or where an
        earlier run settled when its gates are trained on.
    seed
        Seed of gates, texts and their order.
    """

    budget: float = 0.8
    further_budgets: tuple[float, ...] = ()
    steps: int = 1000
    batch: int = 2
    length: int = 256
    gate_lr: float = 2e-3
    adapter_lr: float = 1e-3
    kl_weight: float = 0.5
    ce_weight: float = 0.5
    descent: float = 0.25
    price: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for budget in (self.budget, *self.further_budgets):
            if not 0 < budget < 1:
                raise ValueError(f"budget={budget} must lie between 0 and 1, as 0.8 does.")

    def budget_of(self, step: int) -> float:
        """Return the budget that a step serves."""
        if not self.further_budgets or step % 2 == 0:
            return self.budget
        return self.further_budgets[step // 2 % len(self.further_budgets)]


@dataclass
class Price:
    """Nats that the whole dense budget costs, steered so that the realised budget meets its target.

    Attributes
    ----------
    level
        What the price has settled to; the integral part of the controller.
    """

    level: float = 0.0

    def update(self, excess: float) -> float:
        """Take the realised budget's excess over its target and return the price for this step."""
        self.level = max(0.0, self.level + 0.1 * excess)
        return max(0.0, self.level + 4.0 * excess)


class Thresholds:
    """Thresholds at which the gates meet the further budgets, while the scores move.

    The main budget keeps threshold 0: there the price moves the scores. Elsewhere the threshold
    follows the scores, and the price stays what the main budget made it.

    Parameters
    ----------
    levels
        Threshold of each further budget, 0 where not yet known.
    """

    def __init__(self, levels: dict[float, float]) -> None:
        self.levels = levels

    def at(self, budget: float) -> float:
        """Return a budget's threshold."""
        return self.levels.get(budget, 0.0)

    def update(self, budget: float, excess: float) -> None:
        """Raise a budget's threshold by what its step ran too much."""
        self.levels[budget] = self.at(budget) + 0.03 * excess


class BudgetMeter:
    """Reads decisions off the gates of a training forward and turns them into a budget.

    Parameters
    ----------
    model
        The gated model.
    config
        Its gates.
    """

    def __init__(self, model: Any, config: GatedConfig) -> None:
        flops = UnitFlops.from_config(model.config)
        width, layers = model.config.hidden_size, model.config.num_hidden_layers
        self._flops = flops
        self._layers = layers
        self._adapter = adapter_flops(width, config.adapter_rank)
        self._gate = gate_flops(width, config.gate_hidden)
        self._margins: list[tuple[str, Tensor]] = []
        self._hooks = [
            module.decide.register_forward_hook(self._hook(unit))
            for _, unit, module in gated_units(model)
        ]

    def _hook(self, unit: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, execute: Tensor) -> None:
            self._margins.append((unit, straight_through(args[0] - module.threshold, execute)))

        return hook

    def read(self) -> tuple[Float[Tensor, ""], Float[Tensor, " sites"]]:
        """Return the realised budget, with gradient, and each site's rate; then forget."""
        length = self._margins[0][1].shape[-1]
        device = self._margins[0][1].device
        seen = torch.arange(1, length + 1, device=device)
        attn = (self._flops.attn_fixed + self._flops.attn_per_key * seen).float()
        unit_flops = {"attn": attn, "mlp": torch.full_like(attn, self._flops.mlp)}
        dense = self._layers * (attn + self._flops.mlp).mean()
        spent = dense + len(self._margins) * self._gate
        for unit, execute in self._margins:
            spent = spent - ((1 - execute) * (unit_flops[unit] - self._adapter)).mean()
        rates = torch.stack([execute.detach().mean() for _, execute in self._margins])
        self._margins.clear()
        return spent / dense, rates

    def close(self) -> None:
        """Take the hooks out."""
        for hook in self._hooks:
            hook.remove()


def train(
    student: Any,
    teacher: Any,
    windows: Int[Tensor, "n t"],
    *,
    recipe: Recipe,
    config: GatedConfig,
    folder: Path,
    report: Callable[[dict[str, float]], None],
    checkpoint_every: int = 50,
) -> None:
    """Train gates and adapters in place, resuming from ``folder`` if it holds a checkpoint.

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
    price, thresholds = Price(recipe.price), Thresholds({})
    start = _restore(folder, parameters, optimizer, price, thresholds, recipe)
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
            budget = recipe.budget_of(step)
            set_threshold(student, thresholds.at(budget))
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
            excess = realised.item() - target
            if budget == recipe.budget:
                nats = price.update(excess)
            else:
                nats = price.level
                thresholds.update(budget, excess)
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
                "threshold": thresholds.at(budget),
                "grad_norm": norm.item(),
                "rate_min": rates.min().item(),
                "rate_max": rates.max().item(),
                "seconds": time.monotonic() - began,
            }
            report(figures)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(figures) + "\n")
            if (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps:
                _checkpoint(folder, parameters, optimizer, price, thresholds, step + 1, recipe)
    finally:
        meter.close()
        set_threshold(student, 0.0)
        student.eval()


def budget_at(step: int, recipe: Recipe) -> float:
    """Return the budget aimed at: falling linearly from 1, then held."""
    descent = recipe.descent * recipe.steps
    share = min(1.0, step / descent) if descent else 1.0
    return 1.0 - share * (1.0 - recipe.budget_of(step))


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
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _checkpoint(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    price: Price,
    thresholds: Thresholds,
    step: int,
    recipe: Recipe,
) -> None:
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in optimizer.state[value].items():
            tensors[f"{key}/{name}"] = state
    metadata = {
        "step": str(step),
        "price": repr(price.level),
        "thresholds": json.dumps(list(thresholds.levels.items())),
        "recipe": json.dumps(asdict(recipe)),
    }
    temporary = folder / "checkpoint.tmp"
    save_file(tensors, temporary, metadata=metadata)
    temporary.replace(folder / "checkpoint.safetensors")


def _restore(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    price: Price,
    thresholds: Thresholds,
    recipe: Recipe,
) -> int:
    path = folder / "checkpoint.safetensors"
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
    price.level = float(metadata["price"])
    thresholds.levels.update(dict(json.loads(metadata["thresholds"])))
    return int(metadata["step"])


def _check_recipe(begun: dict[str, Any], recipe: Recipe, folder: Path) -> None:
    asked = json.loads(json.dumps(asdict(recipe)))
    other = [f"{name}={begun[name]}" for name in asked if begun.get(name) != asked[name]]
    if other:
        raise ValueError(
            f"The run in {folder} was begun with {', '.join(other)}. Resume it with the same, "
            "or train into another folder."
        )
