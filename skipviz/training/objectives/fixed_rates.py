"""Training adapters for policies of fixed rates: static ones, and random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skipviz.families.fixed_rates.modules import set_rates, set_seed
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
        self._rates = rates

    def prepare(self, model: Any, step: int) -> None:
        """Set the rates of the budget that this step serves, and draw anew."""
        set_rates(model, self._rates[f"{self._recipe.budget_of(step):g}"])
        set_seed(model, self._recipe.seed + 1 + step)

    def price(self, step: int, excess: float) -> float:
        """Return 0: the budget is met by construction."""
        return 0.0

    def finish(self, model: Any) -> None:
        """Leave the model at the main budget, with the draws of seed 0."""
        set_rates(model, self._rates[f"{self._recipe.budget:g}"])
        set_seed(model, 0)

    def state(self) -> dict[str, Any]:
        """Return nothing: the step says it all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
