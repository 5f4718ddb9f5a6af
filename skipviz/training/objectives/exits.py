"""Translators learn to say at a layer what the last layer will say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from skipviz.budgets import Budgets
from skipviz.errors import InputError
from skipviz.families.causal_lm import logits_of
from skipviz.families.exits.modules import (
    EXIT_RULES,
    ExitConfig,
    ExitRule,
    exit_parameters,
    install_exits,
)
from skipviz.families.exits.settings import EXIT_TEXTS, ExitSettings, read_exits, write_exits
from skipviz.families.hooks import before, hooked
from skipviz.folders import WEIGHTS
from skipviz.models import SkipModel, from_parts, load
from skipviz.text.documents import Document
from skipviz.training.finish import about_run, document, made_folder
from skipviz.training.loop import CHANGEABLE, CHECKPOINT, Figures
from skipviz.training.losses import distillation_loss
from skipviz.training.objectives.exit_thresholds import calibrate_exits
from skipviz.training.pipeline import fit, trained
from skipviz.training.prepare import TrainingRun, prepare
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher
from skipviz.training.warmstart import Moments

COMPARED_TOKENS = 160
"""Tokens of each step whose predictions are compared: the head is the larger part of the work."""


class Translation:
    """Divergence of each exit's prediction from the dense model's, and cross-entropy.

    Parameters
    ----------
    model
        A model with exits.
    teacher
        What the dense model says to the windows.
    windows
        Token ids.
    batches
        Numbers of each step's windows.
    recipe
        How to train.
    """

    def __init__(
        self,
        model: Any,
        teacher: Teacher,
        windows: Int[Tensor, "n t"],
        *,
        batches: Int[Tensor, "s b"],
        recipe: Recipe,
    ) -> None:
        self._model = model.train()
        self._teacher = teacher
        self._windows = windows
        self._batches = batches
        self._recipe = recipe

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The translators'."""
        return exit_parameters(self._model)

    def loss(self, step: int) -> tuple[Tensor, Figures]:
        """Run the dense model once, every exit on some of its tokens, and add their losses up."""
        recipe, model = self._recipe, self._model
        here = self._batches[step]
        rows = self._windows[here].to(model.device)
        tokens = rows[:, :-1].numel()
        generator = recipe.generator_of(step)
        some = torch.randperm(tokens, generator=generator)[:COMPARED_TOKENS].to(model.device)
        states: list[Tensor] = []
        hooks = [
            before(translator, lambda _, args: states.append(args[0].flatten(0, 1)[some]))
            for translator in model.exits.translators
        ]
        with torch.no_grad(), hooked(hooks):
            model.model(rows[:, :-1], use_cache=False)
        wanted = self._teacher.logits(here).flatten(0, 1)[some]
        targets = rows[:, 1:].flatten()[some]
        total = torch.zeros((), device=model.device)
        figures: Figures = {}
        exits = zip(model.exits.config.exits, model.exits.translators, states, strict=True)
        for layer, translator, state in exits:
            logits = logits_of(model, model.model.norm(translator(state)))
            objective, divergence, cross_entropy = distillation_loss(
                logits, wanted, targets, kl_weight=recipe.kl_weight, ce_weight=recipe.ce_weight
            )
            total = total + objective
            figures |= {f"kl_{layer}": divergence.item(), f"ce_{layer}": cross_entropy.item()}
        return total, figures

    def finish(self) -> None:
        """Leave the model in eval mode."""
        self._model.eval()

    def state(self) -> dict[str, Any]:
        """Return nothing: the step says it all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


@torch.no_grad()
def fit_translators(model: Any, windows: Int[Tensor, "n t"], *, batch: int) -> None:
    """Set every translator to the regression of the last layer's state on its own layer's.

    Parameters
    ----------
    model
        A model with exits that lets no token leave.
    windows
        Token ids to measure on.
    batch
        Windows in each forward.
    """
    exits = model.exits
    width = model.config.hidden_size
    moments = [Moments(width, model.device) for _ in exits.translators]
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        return lambda _, args: seen.__setitem__(number, args[0].flatten(0, 1).float())

    last = len(exits.translators)
    read = [*exits.translators, model.model.norm]
    hooks = [before(module, keep(number)) for number, module in enumerate(read)]
    training = model.training
    model.train()  # no exit is asked
    try:
        with hooked(hooks):
            for part in windows.split(batch):
                seen.clear()
                model.model(part.to(model.device), use_cache=False)
                for number, sums in enumerate(moments):
                    sums.add(seen[number], seen[last] - seen[number])
    finally:
        model.train(training)
    for translator, sums in zip(exits.translators, moments, strict=True):
        down, up, bias = sums.solve(exits.config.adapter_rank)
        translator.down.weight.copy_(down)
        translator.up.weight.copy_(up)
        translator.up.bias.copy_(bias)


def train_exits(
    run: TrainingRun,
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
        fit(run, student, prepared, what="translators", by=fit_translators)
    objective = Translation(
        student,
        prepared.teacher,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
    )
    # Translators are the same whatever the budgets, which only set the thresholds.
    changeable = (*CHANGEABLE, "budget", "further_budgets")
    begun = trained(
        run, prepared, objective, name="exit", about=asdict(config), changeable=changeable
    )
    made = made_folder(run)
    write_exits(student, made / WEIGHTS)
    run.say("Calibrating thresholds")
    dense = load(run.backbone)
    install_exits(dense.model, config)
    read_exits(dense.model, made / WEIGHTS)
    ready = replace(from_parts(dense.model, dense.tokenizer), name=made.name)
    thresholds = _thresholds(run, ready, calibration, made)
    policy = next(iter(thresholds))
    about = about_run(made, run, prepared)
    if run.recipe.budget not in thresholds[policy]:
        about["budget"] = next(iter(thresholds[policy]))
    ExitSettings(**about, policy=policy, exits=config, thresholds=thresholds).write(made)
    document(
        made,
        run,
        "exit",
        begun=begun,
        prepared=prepared,
        tokens_a_step=min(COMPARED_TOKENS, run.recipe.batch * run.recipe.length),
    )
    return made


def _thresholds(
    run: TrainingRun, ready: SkipModel, calibration: Sequence[Document], made: Path
) -> dict[ExitRule, Budgets[float]]:
    """Return each rule's thresholds of the budgets that it reaches."""
    thresholds: dict[ExitRule, Budgets[float]] = {
        rule: calibrate_exits(ready, calibration[::EXIT_TEXTS], rule, run.recipe.budgets)
        for rule in EXIT_RULES
    }
    for rule, levels in thresholds.items():
        missed = [f"{b:g}" for b in run.recipe.budgets if b not in levels]
        if missed and rule != "patience":  # which has budgets of its own
            run.say(f"The rule {rule} does not meet a budget of {', '.join(missed)}.")
    # A rule may reach none of the budgets asked for, and patience may save nothing.
    reached = {rule: levels for rule, levels in thresholds.items() if levels}
    if not reached:
        raise InputError(
            f"No rule of these exits meets a budget of {', '.join(map(str, run.recipe.budgets))}. "
            f"The translators are in {made}; ask for other budgets, or for more exits."
        )
    return reached
