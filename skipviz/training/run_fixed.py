"""Trains the adapters of a policy of fixed rates, from texts to a model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from skipviz.atomic import written
from skipviz.errors import InputError
from skipviz.families.gated.fixed_rates import install_rates
from skipviz.families.gated.modules import GatedConfig
from skipviz.models.gate_weights import read_adapters, read_gates, write_gates
from skipviz.models.samples import GATES, checked_adapters, learned_settings
from skipviz.training.choices import Choice
from skipviz.training.finish import describe, document, made_folder
from skipviz.training.loop import train
from skipviz.training.objectives.distillation import Distillation
from skipviz.training.objectives.fixed_rates import FixedSteering
from skipviz.training.prepare import WARM_START_BATCH, WARM_START_WINDOWS, Run, prepare
from skipviz.training.warmstart import fit_adapters


def train_fixed(
    run: Run,
    *,
    config: GatedConfig,
    choose: Choice,
    chosen_by: str,
    start: Path | None = None,
) -> Path:
    """Train adapters for a policy of fixed rates; an interrupted run is taken up again.

    Parameters
    ----------
    run
        The run.
    config
        The shape of the units; ``config.gate_hidden`` is 0.
    choose
        Returns the rates of every site for each budget, from the model with fitted adapters and
        the training windows.
    chosen_by
        The choice in words; a run is resumed only with the same.
    start
        A folder of learned gates whose adapters to start from, so that both have seen as many
        tokens; fitted adapters if there is none.

    Returns
    -------
    Path
        The folder of the finished model, ``run.folder / "model"``.
    """
    prepared = prepare(run, start=start)
    student = run.dense().model
    install_rates(student, config, seed=run.recipe.seed)
    settings = None if start is None else learned_settings(start)
    started = "" if settings is None else settings.gates_sha256
    fitted, chosen = run.folder / "fitted.safetensors", run.folder / "rates.json"
    # What the choice depends on is kept with it; adapters without it are of a run that was cut off.
    depends = {"by": chosen_by, "start": started, **prepared.about}
    if chosen.exists():
        read_gates(student, fitted, rates={})
    else:
        if start is not None and settings is not None:
            read_adapters(student, checked_adapters(settings, start))
        else:
            run.say("Fitting adapters")
            fit_adapters(student, prepared.windows[:WARM_START_WINDOWS], batch=WARM_START_BATCH)
        write_gates(student, fitted, rates={})
        read_gates(student, fitted, rates={})  # rounded, as a resumed run finds them
        run.say("Choosing sites")
        made_rates = {**depends, "rates": choose(student, prepared.windows)}
        with written(chosen) as partial:
            partial.write_text(json.dumps(made_rates), encoding="utf-8")
    known = json.loads(chosen.read_text(encoding="utf-8"))
    rates = known["rates"]
    if known["by"] != chosen_by or list(rates) != [f"{b:g}" for b in run.recipe.budgets]:
        raise InputError(
            f"The sites in {run.folder} were chosen {known['by']} for budgets {', '.join(rates)}. "
            "Resume with the same, or train into another folder."
        )
    if any(known.get(name) != value for name, value in depends.items()):
        raise InputError(
            f"The sites in {run.folder} were chosen from other adapters or on other texts. Resume "
            "with the same --start, --windows, --seed and --steps, or train into another folder."
        )
    run.say("Training")
    objective = Distillation(
        student,
        prepared.teacher,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
        config=config,
        steering=FixedSteering(run.recipe, rates),
    )
    about = {
        "objective": "fixed",
        **prepared.about,
        "rates": rates,
        "start": started,
        **asdict(config),
    }
    begun = train(objective, recipe=run.recipe, folder=run.folder, report=run.report, about=about)
    made = made_folder(run)
    write_gates(student, made / GATES, rates=rates)
    describe(made, run, backbone_sha256=prepared.backbone_sha256, config=config, rates=rates)
    document(made, run, "fixed", begun=begun, start=start, prepared=prepared)
    return made
