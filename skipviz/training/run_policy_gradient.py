"""Trains gates on by policy gradient, from texts to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from skipviz.errors import InputError
from skipviz.evaluation.card import CURVE
from skipviz.families.gated.modules import gated_units, install_gates
from skipviz.models import load
from skipviz.models.gate_weights import read_gates, write_gates
from skipviz.models.samples import GATES, checked_adapters, checked_gates, learned_settings
from skipviz.schema import site_label
from skipviz.text.documents import Document
from skipviz.training.collapse import CollapseWatch
from skipviz.training.finish import calibrated, describe, document, made_folder
from skipviz.training.loop import LOG, train
from skipviz.training.objectives.policy_gradient import PolicyGradient
from skipviz.training.prepare import Run, prepare


def train_policy(
    run: Run,
    *,
    temperature: float,
    start: Path,
    calibration: Sequence[Document],
) -> Path:
    """Train gates on by policy gradient; an interrupted run is taken up again.

    Parameters
    ----------
    run
        The run; its budgets are among those of ``start``.
    temperature
        Width of the policy's indecision, on the scale of the score, above 0.
    start
        A folder of learned gates.
    calibration
        Texts to calibrate the thresholds on.

    Returns
    -------
    Path
        The folder of the finished model, ``run.folder / "model"``; the figures of every step are in
        it, in ``learning_curve.csv``.
    """
    if temperature <= 0:
        raise InputError(f"temperature={temperature:g} must be above 0, as 0.003 is.")
    settings = learned_settings(start)
    lacking = [f"{b:g}" for b in run.recipe.budgets if f"{b:g}" not in settings.thresholds]
    if lacking:
        raise InputError(
            f"{start} has no threshold for budget {', '.join(lacking)}; there are "
            f"{', '.join(settings.thresholds)}."
        )
    thresholds = {budget: settings.thresholds[f"{budget:g}"] for budget in run.recipe.budgets}
    prepared = prepare(run, start=start)
    student = run.dense().model
    install_gates(student, settings.gates)
    owned = checked_adapters(settings, start)
    read_gates(student, checked_gates(settings, start), rates={}, adapters=owned)
    labels = [site_label(layer, unit, 0) for layer, unit, _ in gated_units(student)]
    objective = PolicyGradient(
        student,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
        config=settings.gates,
        temperature=temperature,
        thresholds=thresholds,
        watch=CollapseWatch(labels, steps=run.recipe.collapse_after),
    )
    run.say("Training")
    about = {
        "objective": "policy-gradient",
        **prepared.about,
        "temperature": temperature,
        "start": settings.gates_sha256,
        "thresholds": list(thresholds.values()),
    }
    begun = train(objective, recipe=run.recipe, folder=run.folder, report=run.report, about=about)
    made = made_folder(run)
    write_gates(student, made / GATES, rates={}, adapters=False)
    run.say("Calibrating thresholds")
    realigned = calibrated(
        load(run.backbone), made / GATES, settings.gates, calibration, thresholds, adapters=owned
    )
    describe(
        made,
        run,
        backbone_sha256=prepared.backbone_sha256,
        config=settings.gates,
        thresholds=realigned,
        owned=owned,
    )
    document(
        made,
        run,
        "policy-gradient",
        begun={**begun, "temperature": temperature},
        start=start,
        prepared=prepared,
    )
    pl.read_ndjson(run.folder / LOG).drop("seconds").write_csv(made / CURVE, float_precision=5)
    return made
