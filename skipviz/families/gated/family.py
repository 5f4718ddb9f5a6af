"""Reads and forces the gates of ``skipviz.families.gated.modules``, as skipviz trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.gated.gathered import Gathering
from skipviz.families.gated.modules import Decide, Gate, GatedUnit, gated_units
from skipviz.families.gated.one_token import Turns
from skipviz.families.gated.settings import SiteThresholds, Threshold, settings_of
from skipviz.families.hooks import forced_now, forcing, observing
from skipviz.families.llama import adapter_flops, gate_flops
from skipviz.families.plan_run import PlanRun
from skipviz.families.powers import SkippableUnit, Traits
from skipviz.families.settings import Setting, Settings
from skipviz.schema import Rule, Site


class GatedUnits(ABC):
    """What families of gated units share: where they are, how they are read, forced and flipped."""

    @abstractmethod
    def rule_of(self, unit: GatedUnit) -> Rule:
        """Return how a unit's score becomes its decision."""

    def sites(self, model: nn.Module) -> list[Site]:
        """Return attention and MLP of each gated layer, in running order."""
        return [
            Site(
                layer=layer,
                unit="attn" if unit == "attn" else "mlp",
                rule=self.rule_of(gated),
                polarity=1,
                skip_path="adapter",
                kv="computed",
                computed_anyway=gated.carry_out is None,
                scope="token",
                gate_flops=_gate_flops(gated),
                skip_flops=adapter_flops(
                    gated.adapter.down.in_features, gated.adapter.down.out_features
                ),
            )
            for layer, unit, gated in gated_units(model)
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of gates on attention and MLPs."""
        return Traits(batchable=True, in_backbone=True, resumable=True)

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Pass every decision made in this thread to ``sink``."""

        def observer(site: int) -> Callable[[Decide, tuple[Tensor], Tensor], None]:
            def hook(decide: Decide, args: tuple[Tensor], executed: Tensor) -> None:
                (score,) = args
                sink.on_gate(
                    site,
                    score=score.detach() if score.requires_grad else score,
                    threshold=decide.threshold,
                    ran=executed,
                    forced=forced_now(decide),
                )

            return hook

        units = gated_units(model)
        return observing([(unit.decide, observer(site)) for site, (_, _, unit) in enumerate(units)])

    def force(self, model: nn.Module, plan: Plan) -> AbstractContextManager[None]:
        """Replace decisions made in this thread by those of ``plan``.

        Raises
        ------
        ValueError
            If the plan has another number of sites, or fewer tokens than the model is given.
        """
        units = [gated for _, _, gated in gated_units(model)]
        if plan.execute.shape[-1] != len(units):
            raise InputError(
                f"The plan decides {plan.execute.shape[-1]} sites; the model has {len(units)}."
            )
        run = PlanRun.of(plan, device=units[0].decide.threshold.device)

        def override(site: int) -> Callable[[Decide, tuple[Tensor], Tensor], Tensor]:
            def hook(decide: Decide, args: tuple[Tensor], executed: Tensor) -> Tensor:
                return run.apply(decide, site, executed, last=site == len(units) - 1)

            return hook

        return forcing(run, [(unit.decide, override(site)) for site, unit in enumerate(units)])

    def gathers(self, model: nn.Module) -> bool:
        """Say whether units run for executing tokens alone."""
        return any(unit.carry_out is not None for _, _, unit in gated_units(model))

    def gather(self, model: nn.Module, *, gathered: bool) -> None:
        """Have a model run units for executing tokens alone, or for all and mask them."""
        turns = Turns()
        for _, _, unit in gated_units(model):
            unit.carry_out = Gathering(turns) if gathered else None

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return decisions at random: half of the units of every token run."""
        shape = (texts, tokens, len(list(gated_units(model))))
        return Plan(np.random.default_rng(seed).random(shape) < 0.5)

    def units(self, model: nn.Module) -> list[SkippableUnit]:
        """Return each gated unit with its parts, in running order."""
        return [
            SkippableUnit(
                layer=layer,
                kind="attn" if kind == "attn" else "mlp",
                module=unit,
                dense=unit.unit,
                gate=unit.gate,
                looks=isinstance(unit.gate, Gate),
                decide=unit.decide,
                adapter=unit.adapter,
            )
            for layer, kind, unit in gated_units(model)
        ]


class Gated(GatedUnits):
    """Per-token gates on attention and MLP with adapters, as trained by skipviz."""

    name = "gated"

    def detect(self, model: nn.Module) -> bool:
        """Say whether any module is a gate that looks at the token."""
        return any(isinstance(module, Gate) for module in model.modules())

    def rule_of(self, unit: GatedUnit) -> Rule:
        """Return how a unit's score becomes its decision."""
        return "gt"

    def owns(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a ``skipviz.json`` has thresholds of learned gates."""
        return "gates" in fields and not fields.get("rates")

    def settings(self, fields: Mapping[str, Any]) -> Settings:
        """Return the fields, checked."""
        return settings_of(fields)

    def threshold(self, value: float) -> Setting:
        """Return one threshold for every gate."""
        return Threshold(value)

    def thresholds(self, model: nn.Module) -> list[float]:
        """Return the threshold of each gate."""
        return [float(unit.decide.threshold) for _, _, unit in gated_units(model)]

    def at_thresholds(self, model: nn.Module, thresholds: Sequence[float]) -> Setting:
        """Return a threshold for each gate."""
        same = len(set(thresholds)) == 1
        return Threshold(thresholds[0]) if same else SiteThresholds(tuple(thresholds))

    @contextmanager
    def straight_through(self, model: nn.Module) -> Iterator[None]:
        """Give decisions the slope of the sigmoid in this block."""
        units = [unit for _, _, unit in gated_units(model)]
        for unit in units:
            unit.here.sloped = True
        try:
            yield
        finally:
            for unit in units:
                unit.here.sloped = False


def _gate_flops(gated: GatedUnit) -> int:
    if not isinstance(gated.gate, Gate):
        return 0
    return gate_flops(gated.gate.down.in_features, gated.gate.down.out_features)
