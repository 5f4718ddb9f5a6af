"""Ouro: all layers run in rounds, and a gate says after which round a token is predicted.

Zhu et al., "Scaling latent reasoning via looped language models", 2510.25741; read from
``modeling_ouro.py`` as it comes with the released weights (in Eagle4398/ouro-nixpkgs at 16df09c).
After each round the gate gives the chance to stop there. A token stops after the first round at
which the chances add up to the threshold, ``early_exit_threshold``, or at ``early_exit_step``. The
code runs every round for every token all the same, and takes the states of the round at which a
token stopped; keys and values are those of all rounds. Without either, every round counts. As
nothing but the choice of a round is made of the gates, replacing what they emit forces it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipviz.errors import InputError
from skipviz.families.base import EventSink, Plan
from skipviz.families.causal_lm import backbone_of
from skipviz.families.hooks import after, before, forced_now, forcing, hooked
from skipviz.families.plan_run import PlanRun
from skipviz.families.powers import Place, Traits
from skipviz.families.published.halting import check_steps_of_plan
from skipviz.schema import Site

CERTAIN = 1e4
"""A gate that emits it stops for sure; its opposite does not."""


@dataclass(eq=False)
class _Replaced:
    """What gates emitted in a forward before a plan replaced it, and where it did."""

    emitted: list[Tensor] = field(default_factory=list)
    rounds: list[Tensor] = field(default_factory=list)


class _ForcedRounds(threading.local):
    """What plans of this thread replaced, by the backbone whose gates they force."""

    def __init__(self) -> None:
        self.by_backbone: dict[nn.Module, _Replaced] = {}


_FORCED = _ForcedRounds()


class Ouro:
    """Rounds of all layers; a token is predicted from the round at which it stopped."""

    name = "ouro"

    def detect(self, model: nn.Module) -> bool:
        """Say whether a backbone has a gate for early exit and a number of rounds."""
        backbone = getattr(model, "model", None)
        return (
            isinstance(getattr(backbone, "early_exit_gate", None), nn.Module)
            and isinstance(getattr(backbone, "layers", None), nn.ModuleList)
            and isinstance(getattr(backbone, "total_ut_steps", None), int)
        )

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every layer of every round, in running order; all run the first."""
        own: Any = model
        stops = own.early_exit_step is None and own.early_exit_threshold is not None
        return [
            Site(
                layer=layer,
                unit="block",
                visit=visit,
                rule="cumsum" if stops else "schedule",
                polarity=-1 if stops else None,
                skip_path="frozen",
                kv="computed",
                computed_anyway=True,
                scope="token",
                gate_flops=None,
            )
            for visit in range(_rounds(model))
            for layer in range(len(_layers(model)))
        ]

    def places(self, model: nn.Module) -> list[Place]:
        """Return the layer of each site; rounds change states that are then not taken."""
        return [Place(each, around=None) for _ in range(_rounds(model)) for each in _layers(model)]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds: the head chooses among states of several rounds."""
        return Traits(batchable=True, in_backbone=False)

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return rounds at random, at least one for each token."""
        last = np.random.default_rng(seed).integers(_rounds(model), size=(texts, tokens, 1))
        return Plan(np.repeat(np.arange(_rounds(model)) <= last, len(_layers(model)), axis=-1))

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Stop tokens after the rounds that ``plan`` says; what a gate emits stays where it agrees.

        Raises
        ------
        InputError
            If the model has no ``early_exit_threshold``; or the plan has another number of sites or
            fewer tokens than the model is given, decides otherwise for layers of one round, skips
            the first, or lets a token go on that has stopped.
        """
        own: Any = model
        if own.early_exit_step is not None or own.early_exit_threshold is None:
            raise InputError(
                "Rounds are forced where a threshold decides; set early_exit_threshold, and "
                "early_exit_step to None."
            )
        rounds = _by_round(plan, layers=len(_layers(model)))
        check_steps_of_plan(rounds, _rounds(model))
        run = PlanRun.of(rounds, device=next(model.parameters()).device)
        gates, here = list[Tensor](), _Replaced()  # as the code is given them, and as they were
        limit = float(own.early_exit_threshold)

        def override(gate: nn.Module, args: Any, emitted: Tensor) -> Tensor:
            number = len(gates)
            here.emitted.append(emitted.detach())
            if number + 1 == _rounds(model):  # nothing is decided by the last gate
                run.used += emitted.shape[1]
                return emitted
            gates.append(emitted)
            stays = _added_up([*gates, emitted])[..., number] < limit
            wanted = run.apply(gate, number + 1, stays, last=False)
            now = forced_now(gate)
            here.rounds.append(torch.zeros_like(wanted) if now is None else now)
            other = torch.where(wanted, -CERTAIN, CERTAIN).to(emitted.dtype)[..., None]
            gates[-1] = torch.where((wanted != stays)[..., None], other, emitted)
            return gates[-1]

        backbone: Any = backbone_of(model)

        def begin(*_: Any) -> None:
            gates.clear()
            here.emitted.clear()
            here.rounds.clear()

        outer = _FORCED.by_backbone
        _FORCED.by_backbone = {**outer, backbone: here}
        try:
            with (
                hooked([before(backbone, begin)]),
                forcing(run, [(backbone.early_exit_gate, override)]),
            ):
                yield
        finally:
            _FORCED.by_backbone = outer

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell, when all rounds have run, after which of them each token stops."""
        gates: list[Tensor] = []
        asked: dict[str, Any] = {}
        own: Any = model

        def begin(_: nn.Module, args: Any, kwargs: Any) -> None:
            asked.clear()  # of a forward that was cut short
            asked.update(kwargs)

        def keep(_: nn.Module, args: Any, result: Tensor) -> None:
            gates.append(result.detach())

        def tell(_: nn.Module, args: Any, result: Any) -> None:
            step, limit = asked.get("exit_at_step"), asked.get("exit_threshold")
            step = own.early_exit_step if step is None else step
            limit = own.early_exit_threshold if limit is None else limit
            if asked.get("labels") is not None:
                step = limit = None  # a mean over all rounds
            replaced = _FORCED.by_backbone.get(backbone, _Replaced())
            _tell(sink, len(_layers(model)), gates, step, limit, replaced=replaced)
            gates.clear()
            asked.clear()

        backbone: Any = backbone_of(model)
        hooks = [
            before(model, begin, with_kwargs=True),
            before(backbone, lambda *_: gates.clear()),
            after(backbone.early_exit_gate, keep),
            after(backbone, tell),
        ]
        with hooked(hooks):
            yield


def _by_round(plan: Plan, *, layers: int) -> Plan:
    """Return a plan of rounds from one of every layer of each."""
    shape = (*plan.execute.shape[:-1], -1, layers)
    if plan.execute.shape[-1] % layers:
        raise InputError(
            f"The plan decides {plan.execute.shape[-1]} sites; each round has {layers} layers."
        )
    execute = plan.execute.reshape(shape)
    forced = None if plan.forced is None else plan.forced.reshape(shape)
    parts = [execute] if forced is None else [execute, forced]
    if any((part != part[..., :1]).any() for part in parts):
        raise InputError("A plan must run all layers of a round for a token, or none of them.")
    return Plan(execute[..., 0], None if forced is None else forced[..., 0])


def _tell(
    sink: EventSink,
    layers: int,
    gates: list[Tensor],
    step: int | None,
    limit: float | None,
    *,
    replaced: _Replaced,
) -> None:
    added = _added_up(gates)
    shape, rounds = added.shape[:2], added.shape[-1]
    last = torch.full(shape, rounds - 1, device=added.device)
    if step is not None and 0 <= step < rounds:
        last = torch.full(shape, step, device=added.device)
    elif limit is not None:
        reached = added >= limit
        last = torch.where(reached.any(-1), reached.float().argmax(-1), last)
    compares = limit is not None and step is None
    natural = _added_up(replaced.emitted) if len(replaced.emitted) == len(gates) else added
    for visit in range(rounds):
        score = natural[..., visit - 1] if visit and compares else None
        forced = replaced.rounds[visit - 1] if visit and replaced.rounds else None
        threshold = None if score is None else torch.as_tensor(float(limit or 0.0))
        for layer in range(layers):
            sink.on_gate(
                visit * layers + layer,
                ran=last >= visit,
                score=score,
                threshold=threshold,
                forced=forced,
            )


def _added_up(gates: list[Tensor]) -> Float[Tensor, "b t r"]:
    """Return the chance to have stopped by each round, operation for operation as the code does."""
    left, chances = torch.ones_like(gates[0].squeeze(-1)), []
    for number, gate in enumerate(gates):
        stop = torch.sigmoid(gate.squeeze(-1))
        chances.append(stop * left if number < len(gates) - 1 else left)
        left = left * (1.0 - stop)
    return torch.cumsum(torch.stack(chances, dim=2), dim=2)


def _layers(model: Any) -> list[nn.Module]:
    return list(model.model.layers)


def _rounds(model: Any) -> int:
    return int(model.model.total_ut_steps)
