"""Trains gates with a price on compute, from texts to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from skipviz.families.gated.modules import GatedConfig, gated_units, install_gates
from skipviz.models import load
from skipviz.models.gate_weights import read_gates, write_gates
from skipviz.models.samples import GATES, checked_adapters, checked_gates, learned_settings
from skipviz.schema import site_label
from skipviz.text.documents import Document
from skipviz.training.collapse import CollapseWatch
from skipviz.training.finish import calibrated, describe, document, made_folder
from skipviz.training.loop import CHECKPOINT, train
from skipviz.training.objectives.cost import CostSteering
from skipviz.training.objectives.distillation import Distillation
from skipviz.training.prepare import WARM_START_BATCH, WARM_START_WINDOWS, Run, prepare
from skipviz.training.warmstart import fit_adapters


def train_gates(
    run: Run,
    *,
    config: GatedConfig,
    calibration: Sequence[Document],
    start: Path | None = None,
) -> Path:
    """Train gates for a backbone; an interrupted run of the same folder is taken up again.

    Parameters
    ----------
    run
        The run.
    config
        The shape of the gates.
    calibration
        Texts to calibrate the thresholds on.
    start
        A folder of gates to train on; fresh gates and fitted adapters if there is none.

    Returns
    -------
    Path
        The folder of the finished model, ``run.folder / "model"``.
    """
    prepared = prepare(run, start=start)
    torch.manual_seed(run.recipe.seed)
    student = run.dense().model
    install_gates(student, config)
    if start is not None:
        settings = learned_settings(start)
        gates, owned = checked_gates(settings, start), checked_adapters(settings, start)
        read_gates(student, gates, rates={}, adapters=owned)
    elif not (run.folder / CHECKPOINT).exists():
        run.say("Fitting adapters")
        fit_adapters(student, prepared.windows[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    run.say("Training")
    steering = CostSteering(run.recipe)
    labels = [site_label(layer, unit, 0) for layer, unit, _ in gated_units(student)]
    objective = Distillation(
        student,
        prepared.teacher,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
        config=config,
        steering=steering,
        watch=CollapseWatch(labels, steps=run.recipe.collapse_after),
    )
    about = {
        "objective": "cost",
        **prepared.about,
        "start": "" if start is None else learned_settings(start).gates_sha256,
        **asdict(config),
    }
    begun = train(objective, recipe=run.recipe, folder=run.folder, report=run.report, about=about)
    made = made_folder(run)
    write_gates(student, made / GATES, rates={})
    run.say("Calibrating thresholds")
    starts = {budget: steering.threshold(budget) for budget in run.recipe.budgets}
    thresholds = calibrated(load(run.backbone), made / GATES, config, calibration, starts)
    describe(
        made, run, backbone_sha256=prepared.backbone_sha256, config=config, thresholds=thresholds
    )
    document(made, run, "cost", begun=begun, start=start, prepared=prepared)
    return made
