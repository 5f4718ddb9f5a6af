"""Halting: a shared layer runs again and again, and each token stops after some of its steps.

*ACT* (Graves, "Adaptive computation time", 1603.08983; Dehghani et al., "Universal transformers",
1807.03819), read from ``ACT_basic`` of Universal-Transformer-Pytorch (andreamad8,
``models/UTransformer.py``, by a copy): halting probabilities add up, and a token stops at the step
with which they exceed ``threshold``. That step still counts, with the remainder as its weight. The
layer is computed for all tokens as long as one goes on; what is taken of a token that has stopped
no longer changes.

*PonderNet* (Banino et al., 2107.05407), read from labmlai's annotated implementation
(``labml_nn/adaptive_computation/ponder_net/__init__.py`` at 062577d), where a token takes the place
of a text: at each step a token stops by a draw with its own probability, and at the last one in any
case. It is drawn in training and afterwards. The draw stands in the middle of the code, where no
module is called, so ``torch.bernoulli`` is watched in the thread that records. That is also where
a plan decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skipviz.errors import InputError, RecordingError
from skipviz.families.base import EventSink, Plan
from skipviz.families.hooks import after, before, hooked, under_guard
from skipviz.families.plan_run import PlanRun
from skipviz.families.powers import Place, Traits
from skipviz.schema import Rule, Site

OF_STEPS = Traits(batchable=False, in_backbone=False, silent=True)
"""Steps end once all tokens of a batch have stopped; those behind the end say nothing."""


class ACT:
    """A layer whose steps end as halting probabilities add up."""

    name = "act"

    def detect(self, model: nn.Module) -> bool:
        """Say whether a stack has a unit that adds up halting probabilities."""
        return _stack(model) is not None

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the layer at each step; all tokens run the first."""
        return _sites(_of(_stack(model)).num_layers, rule="cumsum", kv="computed")

    def places(self, model: nn.Module) -> list[Place]:
        """Return the shared layer for each step."""
        stack = _of(_stack(model))
        layer = stack.enc if hasattr(stack, "enc") else stack.dec
        return [Place(layer, around=None)] * int(stack.num_layers)

    def layer_count(self, model: nn.Module) -> int:
        """Return 1: steps share a layer."""
        return 1

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of steps."""
        return OF_STEPS

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell of each step who runs it, by the sum of halting probabilities before it."""
        unit = _of(_stack(model)).act_fn
        steps = [0]
        halting: list[Tensor] = []
        told: list[tuple[Tensor | None, Tensor | None]] = []

        def begin(*_: Any) -> None:
            steps[0] = 0
            halting[:] = []
            told[:] = [(None, None)]

        def step(_: nn.Module, args: Any, emitted: Tensor) -> None:
            # Operation for operation as the code has it, so that ties are its own.
            chance = torch.sigmoid(emitted.detach()).squeeze(-1)
            if not halting:
                halting.append(torch.zeros_like(chance))
            before_it = halting[0]
            running = (before_it < 1.0).float()
            score, stays = told[-1]
            runs = torch.ones_like(chance, dtype=torch.bool) if stays is None else running > 0
            limit = None if score is None else torch.as_tensor(float(unit.threshold))
            sink.on_gate(steps[0], ran=runs, score=score, threshold=limit)
            added = before_it + chance * running
            stops = (added > unit.threshold).float() * running
            running = (added <= unit.threshold).float() * running
            summed = before_it + chance * running
            halting[0] = summed + stops * (stops * (1 - summed))
            # Who has stopped before is asked no more.
            told.append((torch.where(runs, added, torch.nan), running > 0))
            steps[0] += 1

        with hooked([before(unit, begin), after(unit.p, step)]):
            yield


class PonderNet:
    """A layer whose steps end by a draw."""

    name = "pondernet"

    def detect(self, model: nn.Module) -> bool:
        """Say whether a module has probabilities to halt and a number of steps."""
        return _ponders(model) is not None

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the layer at each step; all tokens run the first."""
        return _sites(_of(_ponders(model)).max_steps, rule="sample", kv="computed")

    def places(self, model: nn.Module) -> list[Place]:
        """Return what makes the states of each step."""
        unit = _of(_ponders(model))
        rest = ("lambda_layer", "lambda_prob", "output_layer")
        parts = [part for name, part in unit.named_children() if name not in rest]
        layer = parts[0] if len(parts) == 1 else unit
        return [Place(layer, around=None)] * int(unit.max_steps)

    def layer_count(self, model: nn.Module) -> int:
        """Return 1: steps share a layer."""
        return 1

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of steps."""
        return OF_STEPS

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return steps at random, at least one for each token."""
        steps = int(_of(_ponders(model)).max_steps)
        last = np.random.default_rng(seed).integers(steps, size=(texts, tokens, 1))
        return Plan(np.arange(steps) <= last)

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell of each step who runs it, and with which probability it had been halted before."""
        alive: list[Tensor] = []
        earlier: list[Tensor] = []

        def drew(step: int, chance: Tensor, halts: Tensor, forced: Tensor | None) -> None:
            _check_tokens_halt(chance)
            if step == 0:
                alive[:], earlier[:] = [torch.ones_like(halts, dtype=torch.bool)], []
                sink.on_gate(0, ran=alive[0])
            alive[0] = alive[0] & (halts == 0)
            earlier[:] = [chance.detach()]
            if step + 1 < int(_of(_ponders(model)).max_steps):
                sink.on_gate(
                    step + 1,
                    ran=alive[0],
                    score=chance.detach(),
                    p_execute=1 - chance.detach(),
                    forced=forced,
                )

        with _watching_draws(_of(_ponders(model)), drew=drew):
            yield

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Stop tokens where ``plan`` says, instead of the draws.

        Raises
        ------
        InputError
            If the plan has another number of steps or fewer tokens than the model is given, skips
            the first step, or forces every decision and lets a token go on that has stopped.
        RecordingError
            When the model is run, if it draws for something else than each token.
        """
        unit = _of(_ponders(model))
        steps = int(unit.max_steps)
        check_steps_of_plan(plan, steps)
        run = PlanRun.of(plan, device=next(model.parameters()).device)

        def decide(step: int, halts: Tensor) -> tuple[Tensor, Tensor | None]:
            _check_tokens_halt(halts)
            if step + 1 == steps:  # the last step is the last, whatever is drawn
                run.used += halts.shape[1]
                return halts, None
            stays = run.apply(unit, step + 1, halts == 0, last=False)
            assert run.last_forced is not None
            return (~stays).to(halts.dtype), run.last_forced[1]

        with _watching_draws(unit, decide=decide):
            yield


def check_steps_of_plan(plan: Plan, steps: int) -> None:
    """Check that tokens run the first step, and none goes on that has stopped.

    Parameters
    ----------
    plan
        A plan of decisions for steps, which are its sites.
    steps
        How many there are.

    Raises
    ------
    InputError
        If not, or there are others.
    """
    if plan.execute.shape[-1] != steps:
        raise InputError(f"The plan decides {plan.execute.shape[-1]} steps; the model has {steps}.")
    forced = np.ones_like(plan.execute) if plan.forced is None else plan.forced
    if (forced[..., 0] & ~plan.execute[..., 0]).any():
        raise InputError("The plan skips the first step, which every token runs.")
    if forced.all() and (plan.execute[..., 1:] & ~plan.execute[..., :-1]).any():
        raise InputError("The plan lets a token go on that has stopped; it cannot.")


def _sites(steps: int, *, rule: Rule, kv: Any) -> list[Site]:
    return [
        Site(
            layer=0,
            unit="block",
            visit=step,
            rule=rule,
            polarity=-1,
            skip_path="frozen",
            kv=kv,
            computed_anyway=True,
            scope="token",
            gate_flops=None,
        )
        for step in range(int(steps))
    ]


def _stack(model: nn.Module) -> nn.Module | None:
    """Return the stack whose layer runs in steps; None if there is none."""
    for module in model.modules():
        unit = getattr(module, "act_fn", None)
        if (
            isinstance(unit, nn.Module)
            and isinstance(getattr(unit, "p", None), nn.Linear)
            and hasattr(unit, "threshold")
            and isinstance(getattr(module, "num_layers", None), int)
            and (hasattr(module, "enc") or hasattr(module, "dec"))
        ):
            return module
    return None


def _ponders(model: nn.Module) -> nn.Module | None:
    """Return the module that ponders; None if there is none."""
    for module in model.modules():
        if (
            isinstance(getattr(module, "lambda_layer", None), nn.Linear)
            and isinstance(getattr(module, "lambda_prob", None), nn.Module)
            and isinstance(getattr(module, "max_steps", None), int)
        ):
            return module
    return None


def _of(found: nn.Module | None) -> Any:
    if found is None:
        raise InputError("This model has no halting unit of ACT or PonderNet.")
    return found


def _check_tokens_halt(drawn: Tensor) -> None:
    if drawn.ndim != 2:
        raise RecordingError(
            f"Halting probabilities have shape {tuple(drawn.shape)}; PonderNet is read and forced "
            "where each token has its own, [texts, tokens]."
        )


Drew = Callable[[int, Tensor, Tensor, Tensor | None], None]
Decide = Callable[[int, Tensor], tuple[Tensor, Tensor | None]]


class _Watching(threading.local):
    """Who reads draws in this thread, and who makes them."""

    def __init__(self) -> None:
        self.readers: list[tuple[nn.Module, Drew]] = []
        self.deciders: list[tuple[nn.Module, Decide]] = []
        self.inside: dict[int, int] = {}
        """The steps that a pondering module under way has drawn, by its identity."""
        self.watched = False


_HERE = _Watching()
_DRAWS = (torch.bernoulli, torch.Tensor.bernoulli)


class _Draws(TorchFunctionMode):
    """Sees what ``torch.bernoulli`` returns in this thread."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func(*args, **(kwargs or {}))
        if func not in _DRAWS or not _HERE.inside:
            return drawn
        unit = next(reversed(_HERE.inside))
        step, forced = _HERE.inside[unit], None
        _HERE.inside[unit] += 1
        for module, decide in _HERE.deciders:
            if id(module) == unit:
                drawn, forced = decide(step, drawn)
        for module, drew in _HERE.readers:
            if id(module) == unit:
                drew(step, _chance(*args, **(kwargs or {})), drawn, forced)
        return drawn


def _chance(input: Tensor, p: float | None = None, **_: Any) -> Tensor:  # noqa: A002  torch's name
    """Return the probabilities of a draw, from what ``torch.bernoulli`` is given."""
    return input if p is None else torch.full(input.shape, p, device=input.device)


@contextmanager
def _watching_draws(
    unit: nn.Module, *, drew: Drew | None = None, decide: Decide | None = None
) -> Iterator[None]:
    """Read or make the draws of a module in this block and thread; deciders come first."""
    readers, deciders = _HERE.readers, _HERE.deciders
    read = None if drew is None else under_guard(drew)  # as hooks are
    outermost = not _HERE.watched

    def begin(*_: Any) -> None:
        _HERE.inside.pop(id(unit), None)  # of a forward that was cut short
        _HERE.inside[id(unit)] = 0

    def end(*_: Any) -> None:
        _HERE.inside.pop(id(unit), None)

    _HERE.readers = readers if read is None else [*readers, (unit, read)]
    _HERE.deciders = deciders if decide is None else [*deciders, (unit, decide)]
    _HERE.watched = True
    try:
        with hooked([before(unit, begin), after(unit, end)]):
            if outermost:
                with _Draws():
                    yield
            else:
                yield
    finally:
        _HERE.readers, _HERE.deciders = readers, deciders
        _HERE.watched = not outermost
        if outermost:
            _HERE.inside.clear()
