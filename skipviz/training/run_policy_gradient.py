"""Trains gates on by policy gradient, from texts to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from skipviz.experiments.card import CURVE
from skipviz.families.gated_modules import install_gates
from skipviz.home import sha256_of
from skipviz.models import load
from skipviz.models.gate_weights import read_gates, write_gates
from skipviz.models.samples import (
    GATES,
    adapters_file,
    learned_settings,
)
from skipviz.texts import Document
from skipviz.training.finish import calibrated, describe, document, made_folder
from skipviz.training.loop import LOG, train
from skipviz.training.policy_gradient import PolicyGradient
from skipviz.training.prepare import Report, Say, prepare
from skipviz.training.recipe import Recipe


def train_policy(
    backbone: str,
    *,
    recipe: Recipe,
    temperature: float,
    start: Path,
    calibration: Sequence[Document],
    folder: Path,
    device: str,
    windows: Path | None = None,
    say: Say,
    report: Report,
) -> Path:
    """Train gates on by policy gradient; an interrupted run is taken up again.

    Parameters
    ----------
    backbone
        Name or path of the dense model.
    recipe
        How to train; its budgets are among those of ``start``.
    temperature
        Width of the policy's indecision, on the scale of the score.
    start
        A folder of learned gates.
    calibration
        Texts to calibrate the thresholds on.
    folder, device, windows, say, report
        As for ``train_gates``.

    Returns
    -------
    Path
        The folder of the finished model, ``folder / "model"``; the figures of every step are in
        it, in ``learning_curve.csv``.
    """
    settings = learned_settings(start)
    lacking = [f"{b:g}" for b in recipe.budgets if f"{b:g}" not in settings.thresholds]
    if lacking:
        raise ValueError(
            f"{start} has no threshold for budget {', '.join(lacking)}; there are "
            f"{', '.join(settings.thresholds)}."
        )
    begun = {budget: settings.thresholds[f"{budget:g}"] for budget in recipe.budgets}
    prepared = prepare(backbone, recipe, folder, windows, device, say, start=start)
    student = load(backbone, dtype=recipe.dtype, device=device).model
    install_gates(student, settings.gates)
    owned = adapters_file(settings, start)
    read_gates(student, start / GATES, rates={}, adapters=owned)
    objective = PolicyGradient(
        student,
        prepared.windows,
        recipe=recipe,
        config=settings.gates,
        temperature=temperature,
        thresholds=begun,
    )
    say("Training")
    about = {
        "objective": "policy-gradient",
        "backbone": prepared.backbone_sha256,
        "temperature": temperature,
        "start": sha256_of(start / GATES),
        "thresholds": list(begun.values()),
    }
    train(objective, recipe=recipe, folder=folder, report=report, about=about)
    made = made_folder(folder)
    write_gates(student, made / GATES, rates={}, adapters=False)
    say("Calibrating thresholds")
    thresholds = calibrated(
        load(backbone), made / GATES, settings.gates, calibration, begun, adapters=owned
    )
    describe(
        made,
        backbone,
        prepared.backbone_sha256,
        recipe,
        config=settings.gates,
        thresholds=thresholds,
        owned=owned,
    )
    document(made, recipe, start, sources=prepared.sources, extra={"temperature": temperature})
    pl.read_ndjson(folder / LOG).drop("seconds").write_csv(made / CURVE, float_precision=5)
    return made
