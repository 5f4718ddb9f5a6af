"""Adapters, and gates if there are any, learn to stand in for the dense model at a budget."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from skipviz.families.gated.modules import GatedConfig, gate_parameters
from skipviz.training.collapse import CollapseWatch
from skipviz.training.loop import Figures
from skipviz.training.losses import distillation_loss
from skipviz.training.meter import BudgetMeter
from skipviz.training.recipe import Recipe
from skipviz.training.teacher import Teacher


@runtime_checkable
class Steering(Protocol):
    """Brings a model to the budgets of a recipe, step by step."""

    def prepare(self, model: Any, step: int) -> None:
        """Set what decides in this step."""

    def price(self, step: int, excess: float) -> float:
        """Take the realised budget's excess over its target and return the price, in nats."""

    def finish(self, model: Any) -> None:
        """Leave the model at the main budget."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold, fit for JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


class Distillation:
    """Divergence from the dense model and cross-entropy with the text, plus a price on compute.

    Parameters
    ----------
    student
        A gated model whose adapters have been warm-started.
    teacher
        What the dense model says to the windows.
    windows
        Token ids.
    batches
        Numbers of each step's windows.
    recipe, config
        How to train, and the shape of the gates.
    steering
        Brings the model to its budgets.
    watch
        Stops the run if a gate collapses; None where rates are fixed.
    """

    def __init__(
        self,
        student: Any,
        teacher: Teacher,
        windows: Int[Tensor, "n t"],
        *,
        batches: Int[Tensor, "s b"],
        recipe: Recipe,
        config: GatedConfig,
        steering: Steering,
        watch: CollapseWatch | None = None,
    ) -> None:
        self._student = student.train()
        self._teacher = teacher
        self._windows = windows
        self._batches = batches
        self._recipe = recipe
        self._steering = steering
        self._watch = watch
        self._meter = BudgetMeter(student, config)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Gates and adapters."""
        return gate_parameters(self._student)

    def loss(self, step: int) -> tuple[Tensor, Figures]:
        """Run both models on a step's windows.

        Raises
        ------
        TrainingError
            If a gate has done the same for all tokens of too many steps.
        """
        recipe = self._recipe
        here = self._batches[step]
        rows = self._windows[here].to(self._student.device)
        self._steering.prepare(self._student, step)
        with self._meter.listening():
            logits = self._student(rows[:, :-1], use_cache=False).logits
        objective, divergence, cross_entropy = distillation_loss(
            logits.flatten(0, 1),
            self._teacher.logits(here).flatten(0, 1),
            rows[:, 1:].flatten(),
            kl_weight=recipe.kl_weight,
            ce_weight=recipe.ce_weight,
        )
        realised, rates = self._meter.read()
        target = recipe.budget_at(step)
        nats = self._steering.price(step, realised.item() - target)
        # A budget near 1 leaves nothing to choose.
        if self._watch is not None and recipe.descended(step) == 1:
            self._watch.see(step, rates)
        return objective + nats * realised, {
            "kl": divergence.item(),
            "ce": cross_entropy.item(),
            "budget": realised.item(),
            "target": target,
            "price": nats,
            "rate_min": rates.min().item(),
            "rate_max": rates.max().item(),
        }

    def finish(self) -> None:
        """Leave the model at the main budget, in eval mode."""
        self._steering.finish(self._student)
        self._student.eval()

    def state(self) -> dict[str, Any]:
        """Return the state of the steering and of the watch."""
        watch = {} if self._watch is None else {"watch": self._watch.since}
        return {"steering": self._steering.state(), **watch}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._steering.restore(state["steering"])
        if self._watch is not None:
            self._watch.since = state["watch"]
