"""Training from texts to a folder that ``skipviz.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from skipviz.experiments.card import TRAINING
from skipviz.experiments.evaluate import calibrate
from skipviz.families.gated_modules import (
    GatedConfig,
    gate_parameters,
    install_gates,
    set_threshold,
)
from skipviz.home import sha256_of
from skipviz.models import SkipModel, from_parts, load
from skipviz.models.samples import GATES, GatedModelConfig
from skipviz.texts import Document
from skipviz.training.cost import Recipe, train
from skipviz.training.warmstart import fit_adapters
from skipviz.training.windows import training_windows

WARM_START_WINDOWS = 480
WARM_START_BATCH = 8

Say = Callable[[str], None]


def train_gates(
    backbone: str,
    *,
    recipe: Recipe,
    config: GatedConfig,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    start: Path | None = None,
    say: Say,
    report: Callable[[dict[str, float]], None],
) -> Path:
    """Train gates for a backbone; an interrupted run of the same folder is taken up again.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe, config
        How to train, and the shape of the gates.
    calibration
        Texts to calibrate the threshold on.
    folder
        Where checkpoints, log and the finished model go.
    device
        A torch device; the backbone runs in bfloat16 while training.
    start
        A folder of gates to train on; fresh gates and fitted adapters if there is none.
    say, report
        Called with a sentence before each stage, and with the figures of each step.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    teacher = load(backbone, dtype="bfloat16", device=device)
    say("Collecting texts")
    windows = _windows(teacher, recipe, folder)
    torch.manual_seed(recipe.seed)
    student = load(backbone, dtype="bfloat16", device=device).model
    install_gates(student, config)
    if start is not None:
        _read_gates(student, start / GATES)
    elif not (folder / "checkpoint.safetensors").exists():
        say("Fitting adapters")
        fit_adapters(student, windows[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    say("Training")
    train(
        student, teacher.model, windows, recipe=recipe, config=config, folder=folder, report=report
    )
    say("Calibrating thresholds")
    made = export(
        backbone, student, config=config, calibration=calibration, folder=folder / "model",
        budgets=(recipe.budget, *recipe.further_budgets),
    )  # fmt: skip
    _document(made, recipe, start)
    return made


def export(
    backbone: str,
    student: Any,
    *,
    config: GatedConfig,
    calibration: Sequence[Document],
    budgets: Sequence[float],
    folder: Path,
) -> Path:
    """Write gates and adapters in bfloat16 with thresholds calibrated for them as written."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in gate_parameters(student).items()
    }
    save_file(tensors, folder / GATES)
    dense = load(backbone)
    gated = _with_gates(dense, folder / GATES, config)
    thresholds = {f"{budget:g}": calibrate(gated, calibration, budget=budget) for budget in budgets}
    GatedModelConfig(
        backbone=backbone,
        backbone_sha256=dense.weights_sha256,
        gates_sha256=sha256_of(folder / GATES),
        gates=config,
        thresholds=thresholds,
        budget=f"{budgets[0]:g}",
    ).write(folder)
    return folder


def _document(made: Path, recipe: Recipe, start: Path | None) -> None:
    """Write the recipe, behind those of the runs that the gates started from."""
    before = start / TRAINING if start is not None else None
    runs = json.loads(before.read_text("utf-8")) if before is not None and before.exists() else []
    tokens = recipe.steps * recipe.batch * recipe.length
    runs.append({**asdict(recipe), "steps_done": recipe.steps, "training_tokens": tokens})
    (made / TRAINING).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _with_gates(dense: SkipModel, gates: Path, config: GatedConfig) -> SkipModel:
    install_gates(dense.model, config)
    _read_gates(dense.model, gates)
    set_threshold(dense.model, 0.0)
    return replace(from_parts(dense.model, dense.tokenizer), name=gates.parent.name)


def _read_gates(model: Any, path: Path) -> None:
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in gate_parameters(model).items():
            parameter.copy_(tensors[name])


def _windows(teacher: SkipModel, recipe: Recipe, folder: Path) -> torch.Tensor:
    path = folder / "windows.safetensors"
    if path.exists():
        return load_file(path)["windows"]
    windows = training_windows(
        teacher.model,
        teacher.tokenizer,
        count=max(recipe.steps * recipe.batch, WARM_START_WINDOWS) + 40,
        length=recipe.length + 1,
        seed=recipe.seed,
    )
    save_file({"windows": windows.contiguous()}, path)
    return windows
