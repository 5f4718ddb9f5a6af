"""Trains the translators of early exits, from texts to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from skipviz.errors import InputError
from skipviz.evaluation.calibration import EXIT_TEXTS, calibrate_exits
from skipviz.families.exits.modules import EXIT_RULES, ExitConfig, exit_parameters, install_exits
from skipviz.home import sha256_of
from skipviz.models import from_parts, load
from skipviz.models.gate_weights import read_gates, write_gates
from skipviz.models.samples import GATES, ExitModelConfig
from skipviz.text.documents import Document
from skipviz.training.finish import document, made_folder
from skipviz.training.loop import CHANGEABLE, CHECKPOINT, train
from skipviz.training.objectives.exits import TOKENS, Translation, fit_translators
from skipviz.training.prepare import WARM_START_BATCH, WARM_START_WINDOWS, Run, prepare


def train_exits(
    run: Run,
    *,
    config: ExitConfig,
    calibration: Sequence[Document],
) -> Path:
    """Train the translators of early exits; an interrupted run is taken up again.

    Parameters
    ----------
    run
        The run.
    config
        Where tokens may leave.
    calibration
        Texts to calibrate the thresholds of every rule on.

    Returns
    -------
    Path
        The folder of the finished model, ``run.folder / "model"``.
    """
    prepared = prepare(run)
    student = run.dense().model
    install_exits(student, config)
    for parameter in exit_parameters(student).values():
        parameter.requires_grad_(True)
    if not (run.folder / CHECKPOINT).exists():
        run.say("Fitting translators")
        fit_translators(student, prepared.windows[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
    run.say("Training")
    objective = Translation(
        student,
        prepared.teacher,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
    )
    about = {"objective": "exit", **prepared.about, **asdict(config)}
    # Translators are the same whatever the budgets, which only set the thresholds.
    changeable = (*CHANGEABLE, "budget", "further_budgets")
    begun = train(
        objective,
        recipe=run.recipe,
        folder=run.folder,
        report=run.report,
        about=about,
        changeable=changeable,
    )
    made = made_folder(run)
    write_gates(student, made / GATES, rates={})
    run.say("Calibrating thresholds")
    dense = load(run.backbone)
    install_exits(dense.model, config)
    read_gates(dense.model, made / GATES, rates={})
    ready = replace(from_parts(dense.model, dense.tokenizer), name=made.name)
    thresholds: dict[str, dict[str, float]] = {
        rule: calibrate_exits(ready, calibration[::EXIT_TEXTS], rule, run.recipe.budgets)
        for rule in EXIT_RULES
    }
    for rule, levels in thresholds.items():
        missed = [f"{b:g}" for b in run.recipe.budgets if f"{b:g}" not in levels]
        if missed and rule != "patience":  # which has budgets of its own
            run.say(f"The rule {rule} does not meet a budget of {', '.join(missed)}.")
    # A rule may reach none of the budgets asked for, and patience may save nothing.
    thresholds = {rule: levels for rule, levels in thresholds.items() if levels}
    if not thresholds:
        raise InputError(
            f"No rule of these exits meets a budget of {', '.join(map(str, run.recipe.budgets))}. "
            f"The translators are in {made}; ask for other budgets, or for more exits."
        )
    policy = next(iter(thresholds))
    budget = f"{run.recipe.budget:g}"
    ExitModelConfig(
        backbone=run.backbone,
        backbone_sha256=prepared.backbone_sha256,
        gates_sha256=sha256_of(made / GATES),
        exits=config,
        thresholds=thresholds,
        budget=budget if budget in thresholds[policy] else next(iter(thresholds[policy])),
        policy=policy,
    ).write(made)
    document(
        made,
        run,
        "exit",
        begun=begun,
        prepared=prepared,
        tokens_a_step=min(TOKENS, run.recipe.batch * run.recipe.length),
    )
    return made
