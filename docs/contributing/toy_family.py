"""A family of its own: the MLP of every second layer runs where a linear gate says so.

All that skipviz needs to load, trace, force and re-budget such models is in this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipviz.budgets import Budgets
from skipviz.families import EventSink, Plan, Setting, Settings
from skipviz.families.hooks import forced_now, forcing, observing
from skipviz.families.plan_run import PlanRun
from skipviz.families.settings import checked_weights, common_fields, common_json
from skipviz.families.weights import read_parameters
from skipviz.schema import Site


class ToyDecide(nn.Module):
    """Says which tokens run; what a recorder reads and a plan overrides."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(()), persistent=False)

    def forward(self, score: Float[Tensor, "b t"]) -> Tensor:
        """Return True where the MLP runs."""
        return score > self.threshold


class ToyUnit(nn.Module):
    """An MLP with a gate in front; a token that skips it gets nothing added."""

    def __init__(self, mlp: nn.Module, width: int) -> None:
        super().__init__()
        self.mlp, self.gate, self.decide = mlp, nn.Linear(width, 1), ToyDecide()

    def forward(self, state: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Run the MLP and keep its output where the gate says so."""
        runs = self.decide(self.gate(state)[..., 0])
        output: Tensor = self.mlp(state) * runs[..., None]
        return output


def toy_units(model: Any) -> list[tuple[int, ToyUnit]]:
    """Return layer and gate of each site, in running order."""
    layers = enumerate(model.model.layers)
    return [(number, layer.mlp) for number, layer in layers if isinstance(layer.mlp, ToyUnit)]


def install(model: Any) -> None:
    """Put a gate in front of the MLP of every second layer, in place."""
    for layer in model.model.layers[1::2]:
        layer.mlp = ToyUnit(layer.mlp, model.config.hidden_size)


def parameters(model: Any) -> dict[str, nn.Parameter]:
    """Return the gates' parameters by the name they are stored under."""
    return {
        f"{layer}.{name}": value
        for layer, unit in toy_units(model)
        for name, value in unit.gate.named_parameters()
    }


@dataclass(frozen=True)
class ToyThreshold:
    """What a budget sets."""

    value: float

    @property
    def key(self) -> str:
        """The number, whole."""
        return repr(self.value)

    def apply(self, model: nn.Module) -> None:
        """Set it on every gate."""
        for _, unit in toy_units(model):
            unit.decide.threshold.fill_(self.value)

    def __str__(self) -> str:
        return f"threshold {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class ToySettings(Settings):
    """What is written beside the gates."""

    thresholds: Budgets[float]

    @property
    def budgets(self) -> Budgets[Setting]:
        """The threshold of each budget."""
        return Budgets({budget: ToyThreshold(value) for budget, value in self.thresholds.items()})

    def install(self, model: nn.Module, folder: Path) -> None:
        """Put the gates into a backbone and read their weights."""
        install(model)
        read_parameters(parameters(model), checked_weights(self, folder), also={})

    def description(self) -> str:
        """Return what a card says first."""
        return f"A linear gate in front of every second MLP of `{self.backbone}`."

    def to_json(self) -> dict[str, Any]:
        """Return the fields of ``skipviz.json``."""
        return common_json(self) | {"family": "toy", "thresholds": self.thresholds.to_json()}


class Toy:
    """The family: where the gates are, how they are read and forced, what is kept of a model."""

    name = "toy"

    def detect(self, model: nn.Module) -> bool:
        """Say whether a model has such gates."""
        return any(isinstance(module, ToyUnit) for module in model.modules())

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the gated MLPs, in running order."""
        return [
            Site(
                layer=layer,
                unit="mlp",
                rule="gt",
                polarity=1,
                skip_path="zero",
                kv="computed",
                computed_anyway=True,
                scope="token",
                gate_flops=2 * unit.gate.in_features,
            )
            for layer, unit in toy_units(model)
        ]

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Read every decision without changing it."""

        def reader(site: int) -> Any:
            def hook(decide: ToyDecide, args: tuple[Tensor], ran: Tensor) -> None:
                sink.on_gate(
                    site,
                    score=args[0],
                    threshold=decide.threshold,
                    ran=ran,
                    forced=forced_now(decide),
                )

            return hook

        units = enumerate(toy_units(model))
        return observing([(unit.decide, reader(site)) for site, (_, unit) in units])

    def force(self, model: nn.Module, plan: Plan) -> AbstractContextManager[None]:
        """Decide as a plan says."""
        units = [unit for _, unit in toy_units(model)]
        run = PlanRun.of(plan, device=next(model.parameters()).device)

        def override(site: int) -> Any:
            def hook(decide: ToyDecide, args: tuple[Tensor], ran: Tensor) -> Tensor:
                return run.apply(decide, site, ran, last=site == len(units) - 1)

            return hook

        return forcing(run, [(unit.decide, override(site)) for site, unit in enumerate(units)])

    def owns(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a ``skipviz.json`` is of this family."""
        return fields.get("family") == self.name

    def settings(self, fields: Mapping[str, Any]) -> ToySettings:
        """Return its fields, checked."""
        return ToySettings(**common_fields(fields), thresholds=Budgets(fields["thresholds"]))
