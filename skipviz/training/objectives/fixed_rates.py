"""Training adapters for policies of fixed rates: static ones, and random ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipviz.atomic import atomic_write
from skipviz.budgets import Budgets, budget_key
from skipviz.errors import InputError
from skipviz.families.fixed_rates.modules import install_rates, set_rates, set_seed
from skipviz.families.fixed_rates.settings import FixedSettings, policy_of, write_adapters
from skipviz.families.gated.modules import GatedConfig
from skipviz.families.gated.weights import read_adapters, read_gates, write_gates
from skipviz.folders import WEIGHTS
from skipviz.training.choices import Choice
from skipviz.training.finish import about_run, document, made_folder
from skipviz.training.objectives.distillation import Distillation
from skipviz.training.pipeline import fit, learned_settings, trained
from skipviz.training.prepare import TrainingRun, prepare
from skipviz.training.recipe import Recipe


class FixedSteering:
    """Sets the rates of each step's budget; nothing has to be priced.

    Parameters
    ----------
    recipe
        Its budgets and its seed.
    rates
        Rates of every site for each budget.
    """

    def __init__(self, recipe: Recipe, rates: Mapping[str, Sequence[float]]) -> None:
        self._recipe = recipe
        self._rates = Budgets(rates)

    def prepare(self, model: Any, step: int) -> None:
        """Set the rates of the budget that this step serves, and draw anew."""
        set_rates(model, self._rates[self._recipe.budget_of(step)])
        set_seed(model, self._recipe.seed + 1 + step)

    def price(self, step: int, excess: float) -> float:
        """Return 0: the budget is met by construction."""
        return 0.0

    def finish(self, model: Any) -> None:
        """Leave the model at the main budget, with the draws of seed 0."""
        set_rates(model, self._rates[self._recipe.budget])
        set_seed(model, 0)

    def state(self) -> dict[str, Any]:
        """Return nothing: the step says it all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


def train_fixed(
    run: TrainingRun,
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
        read_gates(student, fitted)
    else:
        if start is not None and settings is not None:
            read_adapters(student, settings.adapters_file(start))
        else:
            fit(run, student, prepared)
        write_gates(student, fitted)
        read_gates(student, fitted)  # rounded, as a resumed run finds them
        run.say("Choosing sites")
        made_rates = {**depends, "rates": choose(student, prepared.windows)}
        with atomic_write(chosen) as partial:
            partial.write_text(json.dumps(made_rates), encoding="utf-8")
    known = json.loads(chosen.read_text(encoding="utf-8"))
    rates = known["rates"]
    if known["by"] != chosen_by or list(rates) != [budget_key(b) for b in run.recipe.budgets]:
        raise InputError(
            f"The sites in {run.folder} were chosen {known['by']} for budgets {', '.join(rates)}. "
            "Resume with the same, or train into another folder."
        )
    if any(known.get(name) != value for name, value in depends.items()):
        raise InputError(
            f"The sites in {run.folder} were chosen from other adapters or on other texts. Resume "
            "with the same --start, --windows, --seed and --steps, or train into another folder."
        )
    objective = Distillation(
        student,
        prepared.teacher,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
        config=config,
        steering=FixedSteering(run.recipe, rates),
    )
    about = {"rates": rates, "start": started, **asdict(config)}
    begun = trained(run, prepared, objective, name="fixed", about=about)
    made = made_folder(run)
    write_adapters(student, made / WEIGHTS, rates)
    FixedSettings(
        **about_run(made, run, prepared),
        policy=policy_of(rates),
        gates=config,
        rates=Budgets({budget: tuple(each) for budget, each in rates.items()}),
    ).write(made)
    document(made, run, "fixed", begun=begun, start=start, prepared=prepared)
    return made
