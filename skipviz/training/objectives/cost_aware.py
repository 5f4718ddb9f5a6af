"""Cost-aware training: a price for compute that meets a budget.

The budget counts what evaluation would run: hard decisions, with the gradient of the sigmoid.
Noise in training would let the noisy decisions meet a budget that the deterministic ones miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from skipviz.families.gated.modules import GatedConfig, install_gates, set_threshold
from skipviz.families.gated.settings import GatedSettings
from skipviz.families.gated.weights import write_gates
from skipviz.folders import WEIGHTS
from skipviz.models import load
from skipviz.text.documents import Document
from skipviz.training.finish import about_run, calibrated, document, made_folder
from skipviz.training.loop import CHECKPOINT
from skipviz.training.objectives.distillation import Distillation
from skipviz.training.pipeline import collapse_watch, fit, learned_settings, read_start, trained
from skipviz.training.prepare import TrainingRun, prepare
from skipviz.training.recipe import PRICE_GAINS, Recipe


@dataclass
class Price:
    """Nats that the whole dense budget costs, steered so that the realised budget meets its target.

    Attributes
    ----------
    level
        What the price has settled to; the integral part of the controller.
    """

    level: float = 0.0

    def update(self, excess: float) -> float:
        """Take the realised budget's excess over its target and return the price for this step."""
        now, settled = PRICE_GAINS
        self.level = max(0.0, self.level + settled * excess)
        return max(0.0, self.level + now * excess)


class Thresholds:
    """Thresholds at which the gates meet the further budgets, while the scores move.

    The main budget keeps threshold 0: there the price moves the scores. Elsewhere the threshold
    follows the scores, and the price stays what the main budget made it.

    Parameters
    ----------
    levels
        Threshold of each further budget, 0 where not yet known.
    """

    def __init__(self, levels: dict[float, float]) -> None:
        self.levels = levels

    def at(self, budget: float) -> float:
        """Return a budget's threshold."""
        return self.levels.get(budget, 0.0)

    def update(self, budget: float, excess: float) -> None:
        """Raise a budget's threshold by what its step ran too much."""
        self.levels[budget] = self.at(budget) + 0.03 * excess


class CostSteering:
    """Steers learned gates to their budgets: a price at the main one, thresholds elsewhere.

    Parameters
    ----------
    recipe
        Its budgets, and the price to start from.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._price = Price(recipe.price)
        self._thresholds = Thresholds({})

    def prepare(self, model: Any, step: int) -> None:
        """Set the threshold of the budget that this step serves."""
        set_threshold(model, self.threshold(self._recipe.budget_of(step)))

    def price(self, step: int, excess: float) -> float:
        """Take the realised budget's excess over its target and return the price, in nats."""
        budget = self._recipe.budget_of(step)
        if budget == self._recipe.budget:
            return self._price.update(excess)
        self._thresholds.update(budget, excess)
        return self._price.level

    def threshold(self, budget: float) -> float:
        """Return the threshold at which training ran a budget last."""
        return self._thresholds.at(budget)

    def finish(self, model: Any) -> None:
        """Leave the model at the main budget."""
        set_threshold(model, 0.0)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold, fit for JSON."""
        return {"price": self._price.level, "thresholds": list(self._thresholds.levels.items())}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._price.level = state["price"]
        self._thresholds.levels = dict(state["thresholds"])


def train_gates(
    run: TrainingRun,
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
        read_start(student, start)
    elif not (run.folder / CHECKPOINT).exists():
        fit(run, student, prepared)
    steering = CostSteering(run.recipe)
    objective = Distillation(
        student,
        prepared.teacher,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
        config=config,
        steering=steering,
        watch=collapse_watch(run, student),
    )
    started = "" if start is None else learned_settings(start).gates_sha256
    about = {"start": started, **asdict(config)}
    begun = trained(run, prepared, objective, name="cost", about=about)
    made = made_folder(run)
    write_gates(student, made / WEIGHTS)
    run.say("Calibrating thresholds")
    starts = {budget: steering.threshold(budget) for budget in run.recipe.budgets}
    thresholds = calibrated(load(run.backbone), made / WEIGHTS, config, calibration, starts)
    GatedSettings(
        **about_run(made, run, prepared), policy="learned", gates=config, thresholds=thresholds
    ).write(made)
    document(made, run, "cost", begun=begun, start=start, prepared=prepared)
    return made
