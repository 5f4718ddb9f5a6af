"""Trains gates with a price on compute, from texts to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from skipviz.families.gated_modules import GatedConfig, gated_units, install_gates
from skipviz.home import sha256_of
from skipviz.models import load
from skipviz.models.gate_weights import read_gates, write_gates
from skipviz.models.samples import GATES, adapters_file, learned_settings
from skipviz.schema import site_label
from skipviz.texts import Document
from skipviz.training.collapse import CollapseWatch
from skipviz.training.cost import CostSteering
from skipviz.training.distillation import Distillation
from skipviz.training.finish import calibrated, describe, document, made_folder
from skipviz.training.loop import CHECKPOINT, train
from skipviz.training.prepare import WARM_START_BATCH, WARM_START_WINDOWS, Report, Say, prepare
from skipviz.training.recipe import Recipe
from skipviz.training.warmstart import fit_adapters


def train_gates(
    backbone: str,
    *,
    recipe: Recipe,
    config: GatedConfig,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    start: Path | None = None,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train gates for a backbone; an interrupted run of the same folder is taken up again.

    Parameters
    ----------
    backbone
        Name or path of a dense Llama-layout model.
    recipe, config
        How to train, and the shape of the gates.
    calibration
        Texts to calibrate the thresholds on.
    folder
        Where checkpoints, log and the finished model go.
    device
        A torch device.
    start
        A folder of gates to train on; fresh gates and fitted adapters if there is none.
    windows
        The folder of another run whose training windows are to be used, with what the dense model
        said to them; new ones are made if there is none.
    say, report
        Called with a sentence before each stage, and with the figures of each step.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``.
    """
    prepared = prepare(backbone, recipe, folder, windows, device, say, start=start)
    torch.manual_seed(recipe.seed)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_gates(student, config)
    if start is not None:
        owned = adapters_file(learned_settings(start), start)
        read_gates(student, start / GATES, rates={}, adapters=owned)
    elif not (folder / CHECKPOINT).exists():
        say("Fitting adapters")
        fit_adapters(student, prepared.windows[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    say("Training")
    steering = CostSteering(recipe)
    labels = [site_label(layer, unit, 0) for layer, unit, _ in gated_units(student)]
    objective = Distillation(
        student,
        prepared.teacher,
        prepared.windows,
        recipe=recipe,
        config=config,
        steering=steering,
        watch=CollapseWatch(labels, steps=recipe.collapse_after),
    )
    begun = "" if start is None else sha256_of(start / GATES)
    about = {
        "objective": "cost",
        "backbone": prepared.backbone_sha256,
        "start": begun,
        **asdict(config),
    }
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = made_folder(folder)
    write_gates(student, made / GATES, rates={})
    say("Calibrating thresholds")
    starts = {budget: steering.threshold(budget) for budget in recipe.budgets}
    thresholds = calibrated(load(backbone), made / GATES, config, calibration, starts)
    describe(made, backbone, prepared.backbone_sha256, recipe, config=config, thresholds=thresholds)
    document(made, recipe, start, sources=prepared.sources)
    return made
