"""Gates as a stochastic policy, trained by what their decisions were worth.

REINFORCE with the greedy rollout as baseline (Rennie et al., "Self-critical sequence training",
2017): a decision is drawn from the sigmoid of its margin over a temperature, and what the draw
gained over the decisions the gates would have made scales the gradient of its log-probability.
The reward is a token's log-likelihood of the next minus a price for each FLOP. Every token has its
own: what a decision does to later tokens through keys and values is not credited to it. No
gradient goes through the backbone, so a step costs two forwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from skipviz.errors import InputError
from skipviz.evaluation.card import CURVE
from skipviz.families.gated.modules import (
    Decide,
    GatedConfig,
    gate_parameters,
    gated_units,
    install_gates,
    set_threshold,
)
from skipviz.families.gated.settings import GatedSettings
from skipviz.families.gated.weights import write_gates
from skipviz.families.hooks import after, hooked
from skipviz.families.llama import UnitFlops, adapter_flops
from skipviz.folders import WEIGHTS
from skipviz.models import load
from skipviz.recording.statistics import next_token_losses
from skipviz.text.documents import Document
from skipviz.training.collapse import CollapseWatch
from skipviz.training.finish import about_run, calibrated, document, made_folder, shared_with
from skipviz.training.loop import TRAINING_LOG, Figures
from skipviz.training.pipeline import collapse_watch, learned_settings, read_start, trained
from skipviz.training.prepare import TrainingRun, prepare
from skipviz.training.recipe import Recipe


class PolicyGradient:
    """What drawn decisions gained over the gates' own, times the gradient of their log-probability.

    Parameters
    ----------
    model
        A model of learned gates; only the gates learn, the adapters stay.
    windows
        Token ids.
    batches
        Numbers of each step's windows.
    recipe, config
        How to train, at ``recipe.price`` nats for the whole dense budget, and the gates' shape.
    temperature
        Width of the policy's indecision, on the scale of the score.
    thresholds
        Threshold of each of the recipe's budgets; each step serves one.
    watch
        Stops the run if a gate collapses.
    """

    def __init__(
        self,
        model: Any,
        windows: Int[Tensor, "n t"],
        *,
        batches: Int[Tensor, "s b"],
        recipe: Recipe,
        config: GatedConfig,
        temperature: float,
        thresholds: dict[float, float],
        watch: CollapseWatch,
    ) -> None:
        self._model = model.eval()
        self._windows = windows
        self._batches = batches
        self._recipe = recipe
        self._temperature = temperature
        self._thresholds = thresholds
        self._watch = watch
        self._savings = _savings(model, config, windows.shape[1] - 1)
        for name, value in gate_parameters(model).items():
            value.requires_grad_(".gate." in name)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The gates'."""
        found = gate_parameters(self._model)
        return {name: value for name, value in found.items() if ".gate." in name}

    def loss(self, step: int) -> tuple[Tensor, Figures]:
        """Run the gates' own decisions and drawn ones on the same windows.

        The figures: mean ``reward`` of the draw and of the greedy rollout, ``nll`` and ``budget``
        of both (adapters and all, but for the gates), mean and variance of the ``advantage`` of
        a token, and the share of decisions that were drawn otherwise.

        Raises
        ------
        TrainingError
            If a gate has done the same for all tokens of too many steps.
        """
        recipe = self._recipe
        rows = self._windows[self._batches[step]].to(self._model.device)
        set_threshold(self._model, self._thresholds[recipe.budget_of(step)])
        with torch.no_grad(), _listening(self._model) as greedy:
            base_nll = self._losses(rows)
        generator = recipe.generator_of(step)
        with _listening(self._model, generator, self._temperature) as drawn:
            drawn_nll = self._losses(rows)
        own, draw = torch.stack(greedy.executed, -1), torch.stack(drawn.executed, -1)
        self._watch.see(step, own.float().mean((0, 1)))
        base_saved = torch.einsum("bts,st->bt", (~own).float(), self._savings)
        drawn_saved = torch.einsum("bts,st->bt", (~draw).float(), self._savings)
        base_reward = recipe.price * base_saved - base_nll
        drawn_reward = recipe.price * drawn_saved - drawn_nll
        advantage = drawn_reward - base_reward
        probability = torch.stack(drawn.log_probability, -1).sum(-1)
        scale = advantage.std().clamp_min(1e-6)
        return -(advantage / scale * probability).mean(), {
            "reward": drawn_reward.mean().item(),
            "greedy_reward": base_reward.mean().item(),
            "nll": drawn_nll.mean().item(),
            "greedy_nll": base_nll.mean().item(),
            "budget": 1 - drawn_saved.mean().item(),
            "greedy_budget": 1 - base_saved.mean().item(),
            "advantage": advantage.mean().item(),
            "advantage_variance": advantage.var().item(),
            "drawn_otherwise": (own != draw).float().mean().item(),
        }

    def finish(self) -> None:
        """Leave the gates at the main budget."""
        set_threshold(self._model, self._thresholds[self._recipe.budget])

    def state(self) -> dict[str, Any]:
        """Return the state of the watch."""
        return {"watch": self._watch.since}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._watch.since = state["watch"]

    def _losses(self, rows: Int[Tensor, "b t"]) -> Float[Tensor, "b t-1"]:
        states = self._model.model(rows[:, :-1], use_cache=False).last_hidden_state
        with torch.no_grad():
            losses = next_token_losses(self._model, states.flatten(0, 1), rows[:, 1:].flatten())
        return losses.view(rows.shape[0], -1)


class _Heard:
    """Decisions of one forward, and their log-probabilities if they were drawn."""

    def __init__(self) -> None:
        self.executed: list[Tensor] = []
        self.log_probability: list[Tensor] = []


@contextmanager
def _listening(
    model: Any, generator: torch.Generator | None = None, temperature: float = 1.0
) -> Iterator[_Heard]:
    """Hear every decision, and make it at random if there is a generator."""
    heard = _Heard()

    def hook(decide: Decide, args: tuple[Tensor], executed: Tensor) -> Tensor | None:
        if generator is None:
            heard.executed.append(executed)
            return None
        margin = (args[0] - decide.threshold) / temperature
        lot = torch.rand(margin.shape, generator=generator).to(margin.device)
        chosen = lot < torch.sigmoid(margin.detach())
        heard.executed.append(chosen)
        heard.log_probability.append(F.logsigmoid(torch.where(chosen, margin, -margin)))
        return chosen

    with hooked(after(unit.decide, hook) for _, _, unit in gated_units(model)):
        yield heard


def _savings(model: Any, config: GatedConfig, length: int) -> Float[Tensor, "s t"]:
    """Return what skipping a site saves for each token, as a share of its dense budget."""
    flops = UnitFlops.from_config(model.config)
    seen = torch.arange(1, length + 1, device=model.device).float()
    dense = model.config.num_hidden_layers * flops.layer(seen)
    skip = adapter_flops(model.config.hidden_size, config.adapter_rank)
    return torch.stack(
        [
            torch.as_tensor(flops.saved(unit, seen, skip=skip)) / dense
            for _, unit, _ in gated_units(model)
        ]
    )


def train_policy(
    run: TrainingRun,
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
    lacking = [f"{b:g}" for b in run.recipe.budgets if b not in settings.thresholds]
    if lacking:
        raise InputError(
            f"{start} has no threshold for budget {', '.join(lacking)}; there are "
            f"{settings.thresholds}."
        )
    thresholds = {budget: settings.thresholds[budget] for budget in run.recipe.budgets}
    prepared = prepare(run, start=start)
    student = run.dense().model
    install_gates(student, settings.gates)
    owned = read_start(student, start)
    objective = PolicyGradient(
        student,
        prepared.windows,
        batches=prepared.batches,
        recipe=run.recipe,
        config=settings.gates,
        temperature=temperature,
        thresholds=thresholds,
        watch=collapse_watch(run, student),
    )
    about = {
        "temperature": temperature,
        "start": settings.gates_sha256,
        "thresholds": list(thresholds.values()),
    }
    begun = trained(run, prepared, objective, name="policy-gradient", about=about)
    made = made_folder(run)
    write_gates(student, made / WEIGHTS, adapters=False)
    run.say("Calibrating thresholds")
    realigned = calibrated(
        load(run.backbone), made / WEIGHTS, settings.gates, calibration, thresholds, adapters=owned
    )
    GatedSettings(
        **about_run(made, run, prepared),
        policy="learned",
        gates=settings.gates,
        thresholds=realigned,
        **shared_with(owned),
    ).write(made)
    document(
        made,
        run,
        "policy-gradient",
        begun={**begun, "temperature": temperature},
        start=start,
        prepared=prepared,
    )
    pl.read_ndjson(run.folder / TRAINING_LOG).drop("seconds").write_csv(
        made / CURVE, float_precision=5
    )
    return made
