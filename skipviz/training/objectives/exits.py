"""Translators learn to say at a layer what the last layer will say."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from skipviz.families.exits.modules import exit_parameters
from skipviz.families.hooks import before, hooked
from skipviz.training.loop import Figures
from skipviz.training.losses import distillation_loss
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher
from skipviz.training.warmstart import Moments

TOKENS = 160
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
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        some = torch.randperm(tokens, generator=generator)[:TOKENS].to(model.device)
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
            logits = model.lm_head(model.model.norm(translator(state)))
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
        A model with exits that lets nobody leave.
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
    model.train()  # nobody is asked
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
