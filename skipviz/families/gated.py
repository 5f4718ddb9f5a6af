"""Reads and forces the gates of ``skipviz.families.gated_modules``, fixed rates among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from skipviz.families.base import EventSink, Plan
from skipviz.families.fixed import FixedRate
from skipviz.families.gated_modules import Decide, Gate, GatedUnit, gated_units
from skipviz.families.plan_run import PlanRun
from skipviz.flops import adapter_flops, gate_flops
from skipviz.schema import Rule, Site


class Gated:
    """Per-token gates on attention and MLP with adapters, as trained by skipviz."""

    name = "gated"

    def detect(self, model: nn.Module) -> bool:
        """Say whether any module is a gated unit."""
        return any(isinstance(module, GatedUnit) for module in model.modules())

    def sites(self, model: nn.Module) -> list[Site]:
        """Return attention and MLP of each gated layer, in running order."""
        return [
            Site(
                layer=layer,
                unit="attn" if unit == "attn" else "mlp",
                rule=_rule(gated),
                polarity=1,
                skip_path="adapter",
                kv="computed",
                computed_anyway=True,
                scope="token",
                gate_flops=_gate_flops(gated),
                skip_flops=adapter_flops(
                    gated.adapter.down.in_features, gated.adapter.down.out_features
                ),
            )
            for layer, unit, gated in gated_units(model)
        ]

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Pass every decision made in this thread to ``sink``."""
        observers = _OBSERVERS.get()
        token = _OBSERVERS.set((*observers, sink))

        def observer(site: int) -> Callable[[Decide, tuple[Tensor], Tensor], None]:
            def hook(decide: Decide, args: tuple[Tensor], executed: Tensor) -> None:
                if any(sink is active for active in _OBSERVERS.get()):
                    sink.on_gate(
                        site,
                        score=args[0].detach(),
                        threshold=decide.threshold,
                        executed=executed,
                        forced=_forced_now(decide),
                    )

            return hook

        handles = [
            gated.decide.register_forward_hook(observer(site))
            for site, (_, _, gated) in enumerate(gated_units(model))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            _OBSERVERS.reset(token)

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Replace decisions made in this thread by those of ``plan``.

        Raises
        ------
        ValueError
            If the plan has another number of sites, or fewer tokens than the model is given.
        """
        units = [gated for _, _, gated in gated_units(model)]
        if plan.execute.shape[-1] != len(units):
            raise ValueError(
                f"The plan decides {plan.execute.shape[-1]} sites; the model has {len(units)}."
            )
        run = PlanRun.of(plan, device=units[0].decide.threshold.device)
        token = _PLANS.set((*_PLANS.get(), run))

        def override(site: int) -> Callable[[Decide, tuple[Tensor], Tensor], Tensor | None]:
            last = site == len(units) - 1

            def hook(decide: Decide, args: tuple[Tensor], executed: Tensor) -> Tensor | None:
                if not any(run is active for active in _PLANS.get()):
                    return None
                return run.apply(decide, site, executed, last=last)

            return hook

        # Prepended, so that observers read what was forced whoever came first.
        handles = [
            unit.decide.register_forward_hook(override(site), prepend=True)
            for site, unit in enumerate(units)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            _PLANS.reset(token)


def _rule(gated: GatedUnit) -> Rule:
    if not isinstance(gated.gate, FixedRate):
        return "gt"
    return "schedule" if gated.gate.rate in (0.0, 1.0) else "sample"


def _gate_flops(gated: GatedUnit) -> int:
    if not isinstance(gated.gate, Gate):
        return 0
    return gate_flops(gated.gate.down.in_features, gated.gate.down.out_features)


# Hooks sit on modules that threads share; what is active is kept for each thread apart.
_OBSERVERS: ContextVar[tuple[Any, ...]] = ContextVar("observers", default=())
_PLANS: ContextVar[tuple[PlanRun, ...]] = ContextVar("plans", default=())


def _forced_now(decide: Decide) -> Tensor | None:
    """Return where a plan of this thread has just decided instead of this gate."""
    forced: Tensor | None = None
    for run in _PLANS.get():
        if run.last_forced is not None and run.last_forced[0] is decide:
            mask = run.last_forced[1]
            forced = mask if forced is None else forced | mask
    return forced
