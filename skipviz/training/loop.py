"""The loop of training, whatever is trained: optimiser, checkpoints, exact resume, log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skipviz.atomic import atomic_write
from skipviz.errors import InputError, TrainingError
from skipviz.parquet import check_regular_file
from skipviz.training.recipe import Recipe

CHECKPOINT = "checkpoint.safetensors"
TRAINING_LOG = "log.jsonl"
LR_FLOOR = 0.01
"""Where the cosine of the learning rates ends, as a share of their peak."""

CHANGEABLE = ("gate_lr", "adapter_lr", "collapse_after")
"""What a stopped run may be resumed with another value of: what stopped it, as a rule."""

Figures = dict[str, float]


@runtime_checkable
class Objective(Protocol):
    """What is made smaller, step by step, and of what it depends."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by the name it is stored under."""

    def loss(self, step: int) -> tuple[Tensor, Figures]:
        """Return a step's loss, with gradient, and the figures to report."""

    def finish(self) -> None:
        """Leave the model as it is to be used."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold beside parameters, fit for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


def train(
    objective: Objective,
    *,
    recipe: Recipe,
    folder: Path,
    report: Callable[[Figures], None],
    about: dict[str, Any] | None = None,
    changeable: Collection[str] = CHANGEABLE,
    checkpoint_every: int = 50,
) -> dict[str, Any]:
    """Train what an objective lets learn, resuming from ``folder`` if it holds a checkpoint.

    Parameters
    ----------
    objective
        Gives the loss of each step.
    recipe
        How many steps, and the learning rates.
    folder
        Where checkpoints, the log and TensorBoard's events go.
    report
        Called after each step with its figures.
    about
        What else the run depends on, fit for JSON; a run is resumed only with the same.
    changeable
        What of the recipe may be another when a run is resumed.
    checkpoint_every
        Steps between checkpoints.

    Returns
    -------
    dict
        The values of ``CHANGEABLE`` that the run began with; if it was resumed with others, these
        under ``changes``, each with the ``step`` after which they held.

    Raises
    ------
    TrainingError
        If the loss or its gradient is not a number; the last checkpoint is kept.
    ValueError
        If the folder holds a run of another recipe or of other things.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = objective.parameters
    optimizer = _optimizer(parameters, recipe)
    described = json.loads(json.dumps({**asdict(recipe), **(about or {})}))
    start, begun, changes = _restore(
        folder, parameters, optimizer, objective, described, changeable
    )
    if start < recipe.steps:
        changes = _with_change(begun, changes, described, start)
    _cut_log(folder / TRAINING_LOG, start)
    board = _board(folder, start)
    try:
        for step in range(start, recipe.steps):
            began = time.monotonic()
            scale = _learning_rate_scale(step, recipe)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
            loss, figures = objective.loss(step)
            optimizer.zero_grad()
            loss.backward()
            slopes = [each.grad for each in parameters.values() if each.grad is not None]
            norm = nn.utils.get_total_norm(slopes)
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                kept = (folder / CHECKPOINT).exists()
                raise TrainingError(
                    f"At step {step} the loss is {loss.item()} and the norm of its gradient "
                    f"{norm.item()}{_where_not_finite(parameters)}. "
                    + (
                        f"The checkpoint in {folder} is from before; lower the learning rates and "
                        "resume."
                        if kept
                        else "Lower the learning rates and begin again."
                    )
                )
            nn.utils.clip_grads_with_norm_(parameters.values(), 1.0, norm)
            optimizer.step()
            seconds = time.monotonic() - began
            figures = {"step": step + 1, **figures, "grad_norm": norm.item(), "seconds": seconds}
            report(figures)
            with (folder / TRAINING_LOG).open("a") as log:
                log.write(json.dumps(figures) + "\n")
            if board is not None:
                for name, value in figures.items():
                    board.add_scalar(name, value, step + 1)
            if (step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps:
                about_run = {"recipe": begun, "changes": changes}
                _checkpoint(folder, parameters, optimizer, objective, step + 1, about_run)
    finally:
        if board is not None:
            board.close()
        objective.finish()
    first = {name: begun[name] for name in CHANGEABLE}
    return {**first, "changes": changes} if changes else first


def _with_change(
    begun: dict[str, Any], changes: list[dict[str, Any]], asked: dict[str, Any], step: int
) -> list[dict[str, Any]]:
    """Return the changes, and behind them what is asked for and did not hold until now."""
    held = {**begun, **{name: value for change in changes for name, value in change.items()}}
    other = {name: asked[name] for name in CHANGEABLE if asked[name] != held[name]}
    return [*changes, {"step": step, **other}] if other else changes


def _where_not_finite(parameters: dict[str, nn.Parameter]) -> str:
    """Return, in words, where numbers end; names of parameters begin with layer and unit."""
    for name, value in parameters.items():
        if not torch.isfinite(value).all():
            return f", and {name} is not finite"
    broken = [
        value.grad is not None and not bool(torch.isfinite(value.grad).all())
        for value in parameters.values()
    ]
    if any(broken) and not all(broken):
        # The gradient comes from above: the last in running order was the first to break.
        last = max(number for number, each in enumerate(broken) if each)
        return f", and the gradient breaks at {list(parameters)[last]}"
    return ""


def _cut_log(path: Path, steps: int) -> None:
    """Forget the steps after the checkpoint, which are run again."""
    if path.exists():
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:steps]
        path.write_text("".join(kept), encoding="utf-8")


def _board(folder: Path, start: int) -> Any:
    """Return a writer of TensorBoard's events, or None where the extra is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)


def _optimizer(parameters: dict[str, nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    groups = [
        {"params": [value for name, value in parameters.items() if part in name.split(".")],
         "peak": rate, "lr": rate}
        for part, rate in (("gate", recipe.gate_lr), ("adapter", recipe.adapter_lr))
    ]  # fmt: skip
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], betas=(0.9, 0.98), weight_decay=0.0
    )


def _learning_rate_scale(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / 20)
    return warm * (LR_FLOOR + (1 - LR_FLOOR) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps)))


def _checkpoint(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    objective: Objective,
    step: int,
    about_run: dict[str, Any],
) -> None:
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in optimizer.state[value].items():
            tensors[f"{key}/{name}"] = state
    metadata = {
        "step": str(step),
        "objective": json.dumps(objective.state()),
        **{name: json.dumps(value) for name, value in about_run.items()},
    }
    with atomic_write(folder / CHECKPOINT) as partial:
        partial.write_bytes(save(tensors, metadata=metadata))


def _restore(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    objective: Objective,
    described: dict[str, Any],
    changeable: Collection[str],
) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Return how many steps were done, what the run was begun with, and what was changed since."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0, described, []
    try:
        check_regular_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        begun = json.loads(metadata["recipe"])
        tensors = load_file(path)
    except (SafetensorError, InputError, OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{path} is damaged and cannot be taken up again ({error!s:.200}). Delete it to begin "
            "anew, or train into another folder."
        ) from error
    _check_recipe(begun, described, folder, changeable)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"parameter/{name}"])
            optimizer.state[value] = {
                "step": tensors[f"step/{name}"],  # AdamW keeps this one on the CPU
                **{
                    key: tensors[f"{key}/{name}"].to(value.device)
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }
    objective.restore(json.loads(metadata["objective"]))
    return int(metadata["step"]), begun, json.loads(metadata.get("changes", "[]"))


def _check_recipe(
    begun: dict[str, Any], asked: dict[str, Any], folder: Path, changeable: Collection[str]
) -> None:
    other = [
        f"{name}={begun.get(name)}"
        for name in asked
        if begun.get(name) != asked[name] and name not in changeable
    ]
    if begun.get("windows", asked.get("windows")) != asked.get("windows"):
        raise InputError(
            f"The run in {folder} was begun on "
            + (f"the windows of {begun['windows']}" if begun["windows"] else "windows of its own")
            + ". Resume it with the same --windows, or train into another folder."
        )
    if other:
        raise InputError(
            f"The run in {folder} was begun with {', '.join(other)}. Resume it with the same, "
            "or train into another folder."
        )
