"""Trains the translators of early exits, from texts to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from skipviz.experiments.calibrate import EXIT_TEXTS, calibrate_exits
from skipviz.families.exit_modules import (
    EXIT_RULES,
    ExitConfig,
    exit_parameters,
    install_exits,
)
from skipviz.home import sha256_of
from skipviz.models import from_parts, load
from skipviz.models.gate_weights import read_gates, write_gates
from skipviz.models.samples import (
    GATES,
    ExitModelConfig,
)
from skipviz.texts import Document
from skipviz.training.exits import Translation, fit_translators
from skipviz.training.finish import document, made_folder
from skipviz.training.loop import CHECKPOINT, train
from skipviz.training.prepare import WARM_START_BATCH, WARM_START_WINDOWS, Report, Say, prepare
from skipviz.training.recipe import Recipe


def train_exits(
    backbone: str,
    *,
    recipe: Recipe,
    config: ExitConfig,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train the translators of early exits; an interrupted run is taken up again.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe, config
        How to train, and where tokens may leave.
    calibration
        Texts to calibrate the thresholds of every rule on.
    folder, device, windows, say, report
        As for ``train_gates``.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``.
    """
    prepared = prepare(backbone, recipe, folder, windows, device, say)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_exits(student, config)
    for parameter in exit_parameters(student).values():
        parameter.requires_grad_(True)
    if not (folder / CHECKPOINT).exists():
        say("Fitting translators")
        fit_translators(student, prepared.windows[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    say("Training")
    objective = Translation(student, prepared.teacher, prepared.windows, recipe=recipe)
    about = {"objective": "exit", "backbone": prepared.backbone_sha256, **asdict(config)}
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = made_folder(folder)
    write_gates(student, made / GATES, rates={})
    say("Calibrating thresholds")
    dense = load(backbone)
    install_exits(dense.model, config)
    read_gates(dense.model, made / GATES, rates={})
    ready = replace(from_parts(dense.model, dense.tokenizer), name=made.name)
    thresholds: dict[str, dict[str, float]] = {
        rule: calibrate_exits(ready, calibration[::EXIT_TEXTS], rule, recipe.budgets)
        for rule in EXIT_RULES
    }
    # A rule may reach none of the budgets asked for, and patience may save nothing.
    thresholds = {rule: levels for rule, levels in thresholds.items() if levels}
    if not thresholds:
        raise ValueError(
            f"No rule of these exits meets a budget of {', '.join(map(str, recipe.budgets))}. The "
            f"translators are in {made}; ask for other budgets, or for more exits."
        )
    policy = next(iter(thresholds))
    budget = f"{recipe.budget:g}"
    ExitModelConfig(
        backbone=backbone,
        backbone_sha256=prepared.backbone_sha256,
        gates_sha256=sha256_of(made / GATES),
        exits=config,
        thresholds=thresholds,
        budget=budget if budget in thresholds[policy] else next(iter(thresholds[policy])),
        policy=policy,
    ).write(made)
    document(made, recipe, None, sources=prepared.sources)
    return made
