"""Reads and forces the gates that ``GateSpec``s describe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from skipviz.errors import InputError, RecordingError
from skipviz.families.base import EventSink, Plan
from skipviz.families.causal_lm import backbone_of
from skipviz.families.described.reading import Reading, follow, reading, with_decisions
from skipviz.families.described.spec import GateSpec, matching
from skipviz.families.hooks import Hook, after, before, forced_now, forcing, hooked
from skipviz.families.plan_run import PlanRun
from skipviz.families.powers import Traits
from skipviz.schema import Site

_ORDER = {"block": 0, "attn": 0, "mlp": 1}
"""Attention runs before the MLP of its layer."""


@dataclass(frozen=True, eq=False)
class _Gate:
    """One gate of a model."""

    spec: GateSpec
    layer: int
    module: nn.Module


class Described:
    """The family of gates that one or more descriptions name.

    Parameters
    ----------
    specs
        One description for each kind of gate, such as one for attention and one for MLPs.
    """

    def __init__(self, specs: Sequence[GateSpec]) -> None:
        if not specs:
            raise InputError("No gates are described; give at least one GateSpec.")
        self.specs = tuple(specs)
        self.name = specs[0].name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.specs))})"

    def detect(self, model: nn.Module) -> bool:
        """Say whether the model has the modules that are named.

        Raises
        ------
        InputError
            If it has not; the message names those that look alike.
        """
        self.sites(model)
        return True

    def specs_of(self, model: nn.Module) -> Sequence[GateSpec]:
        """Return the descriptions that are of this model."""
        return self.specs

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the places of decision by layer, attention before MLP."""
        gates = self._gates(model)
        places = [(gate.layer, gate.spec.unit) for gate in gates]
        if twice := [place for place in places if places.count(place) > 1]:
            raise InputError(
                f"Layer {twice[0][0]} has two gates of the unit {twice[0][1]}; describe each once."
            )
        return [
            Site(
                layer=gate.layer,
                unit=gate.spec.unit,
                rule=gate.spec.rule,
                polarity=gate.spec.polarity,
                skip_path=gate.spec.skip_path,
                kv=gate.spec.kv,
                computed_anyway=gate.spec.computed_anyway,
                scope=gate.spec.scope,
                gate_flops=_gate_flops(gate.module) if gate.spec.scope == "token" else None,
                skip_flops=None if gate.spec.skip_path in (None, "adapter") else 0,
            )
            for gate in gates
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of the way it skips."""
        own = type(model).forward
        backbone = set(backbone_of(model).modules())
        return Traits(
            batchable=False,
            # Code of the user's around the backbone may skip too.
            in_backbone=own.__module__.startswith("transformers.")
            and all(gate.module in backbone for gate in self._gates(model)),
        )

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Pass every decision made in this thread to ``sink``."""
        shape = _Shape()
        waiting: dict[int, _Call] = {}

        def tell(site: int, call: _Call) -> None:
            found = call.reading(shape.now)
            sink.on_gate(
                site,
                score=found.score,
                threshold=found.threshold,
                p_execute=found.p_execute,
                ran=found.ran,
                forced=call.forced,
            )

        def listen(site: int, gate: _Gate) -> Callable[..., None]:
            later = _elsewhere(gate.spec.read) or _elsewhere(gate.spec.mask)

            def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
                given = _Call(model, gate, args, kwargs, result, forced_now(module))
                if later:
                    waiting[site] = given
                else:
                    tell(site, given)

            return hook

        def resume(site: int) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                if (given := waiting.pop(site, None)) is not None:
                    tell(site, given)

            return hook

        hooks = shape.hooks(model)
        for site, gate in enumerate(self._gates(model)):
            hooks.append(after(gate.module, listen(site, gate), with_kwargs=True))
            place = _elsewhere(gate.spec.mask) or _elsewhere(gate.spec.read)
            if place:
                hooks.append(after(_module_at(model, place, gate.layer), resume(site)))
        with hooked(hooks):
            yield

    def _gates(self, model: nn.Module) -> list[_Gate]:
        found = [
            _Gate(spec, layer, module)
            for spec in self.specs_of(model)
            for layer, module in spec.modules(model).items()
        ]
        return sorted(found, key=lambda gate: (gate.layer, _ORDER[gate.spec.unit]))


class ForcibleDescribed(Described):
    """The same where replacing what a gate emits decides."""

    def force(self, model: nn.Module, plan: Plan) -> AbstractContextManager[None]:
        """Replace what gates emit where they would decide otherwise than ``plan``.

        Where a gate decides so by itself, what it emits stays; elsewhere it becomes far too high
        or too low, which also replaces any factor that the model makes of it.

        Raises
        ------
        InputError
            If the plan has another number of sites or fewer tokens than the model is given.
        """
        gates = self._gates(model)
        if plan.execute.shape[-1] != len(gates):
            raise InputError(
                f"The plan decides {plan.execute.shape[-1]} sites; the model has {len(gates)}."
            )
        run = PlanRun.of(plan, device=next(model.parameters()).device)
        shape = _Shape()

        def override(site: int, gate: _Gate) -> Callable[..., Any]:
            def hook(module: nn.Module, args: Any, result: Any) -> Any:
                given = _Call(model, gate, args, {}, result)
                own = given.reading(shape.now, masked=False)
                natural = own.ran.bool()
                wanted = run.apply(module, site, natural, last=site == len(gates) - 1)
                drawn = gate.spec.rule == "sample"
                forced = run.last_forced
                where = forced[1] if drawn and forced is not None else wanted != natural
                return given.emitting(wanted, change=where, natural=own)

            return hook

        @contextmanager
        def on() -> Iterator[None]:
            with ExitStack() as stack:
                stack.enter_context(hooked(shape.hooks(model)))
                hooks = [(gate.module, override(site, gate)) for site, gate in enumerate(gates)]
                stack.enter_context(forcing(run, hooks))
                yield

        return on()


def described(specs: Sequence[GateSpec] | GateSpec) -> Described:
    """Return the family of described gates, forcible if every one of them is."""
    every = (specs,) if isinstance(specs, GateSpec) else tuple(specs)
    kind = ForcibleDescribed if every and all(spec.forcible for spec in every) else Described
    return kind(every)


@dataclass
class _Shape:
    """Texts and tokens of the forward under way."""

    known: tuple[int, int] | None = None

    @property
    def now(self) -> tuple[int, int]:
        if self.known is None:
            raise RecordingError("A gate fired outside a forward of the model.")
        return self.known

    def hooks(self, model: nn.Module) -> list[Hook]:
        """Return hooks on the model and its backbone, either of which may be called."""

        def note(_: nn.Module, args: Any, kwargs: Any) -> None:
            given = kwargs.get("input_ids", args[0] if args else None)
            given = kwargs.get("inputs_embeds") if given is None else given
            if isinstance(given, Tensor) and given.ndim >= 2:
                self.known = (given.shape[0], given.shape[1])

        return [before(each, note, with_kwargs=True) for each in (model, backbone_of(model))]


@dataclass
class _Call:
    """One call of a gate's module."""

    model: nn.Module
    gate: _Gate
    args: Any
    kwargs: Any
    result: Any
    forced: Tensor | None = None

    def reading(self, shape: tuple[int, int], *, masked: bool = True) -> Reading:
        spec = self.gate.spec
        emitted = _EMITTED.natural_of(self.gate.module, self.result)
        found = reading(
            spec,
            self._at(spec.read, "read"),
            shape=shape,
            threshold=self._value(spec.threshold, "threshold"),
            k=self._value(spec.k, "k"),
            mask=self._at(spec.mask, "mask") if masked and spec.mask is not None else None,
        )
        if emitted is None:
            return found
        # The score as the gate gave it, beside the decision that a plan made.
        return Reading(emitted.score, found.ran, found.threshold, emitted.p_execute)

    def emitting(self, wanted: Tensor, *, change: Tensor, natural: Reading) -> Any:
        """Return the module's result with scores that decide as wanted."""
        spec = self.gate.spec
        value = self._at(spec.read, "read")
        made = with_decisions(
            spec, value, wanted, change=change,
            threshold=self._value(spec.threshold, "threshold"),
        )  # fmt: skip
        changed = _with(self.result, spec.read.split(".")[1:], made)
        earlier = _EMITTED.natural_of(self.gate.module, self.result)
        _EMITTED.natural[id(self.gate.module)] = (changed, earlier or natural)
        return changed

    def _at(self, path: str, field: str) -> Any:
        place, colon, name = path.rpartition(":")
        if colon:
            module = _module_at(self.model, place, self.gate.layer) if place else self.gate.module
            return follow(module, name, field=field)
        root, _, rest = path.partition(".")
        if root == "output":
            return follow(self.result, rest, field=field)
        given = self.args if self.args else tuple(self.kwargs.values())
        return follow(given, rest or "0", field=field)

    def _value(self, value: Any, field: str) -> Any:
        return self._at(value, field) if isinstance(value, str) else value


class _Emitted(threading.local):
    """What gates of this thread emitted before a plan replaced it, beside what replaced it."""

    def __init__(self) -> None:
        self.natural: dict[int, tuple[Any, Reading]] = {}

    def natural_of(self, module: nn.Module, result: Any) -> Reading | None:
        """Return what a gate had said, if this is what replaced it."""
        changed, natural = self.natural.get(id(module), (None, None))
        return natural if changed is result and result is not None else None


_EMITTED = _Emitted()


def _elsewhere(path: str | None) -> str:
    """Return the module that a path looks at, if it is another than the gate's."""
    place, colon, _ = (path or "").rpartition(":")
    return place if colon else ""


def _module_at(model: nn.Module, place: str, layer: int) -> nn.Module:
    if "{layer}" in place:
        return matching(model, place, field="mask", layers=(layer,))[layer]
    try:
        return model.get_submodule(place)
    except AttributeError as error:
        raise InputError(f"GateSpec: there is no module {place!r} in this model.") from error


def _with(result: Any, path: list[str], made: Tensor) -> Any:
    """Return a result with a tensor inside it replaced."""
    if not path:
        return made
    head, *rest = path
    if isinstance(result, tuple) and head.lstrip("-").isdigit():
        parts = list(result)
        parts[int(head)] = _with(parts[int(head)], rest, made)
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    raise InputError(
        f"Decisions at output.{head} cannot be forced: the gate returns a {type(result).__name__}."
    )


def _gate_flops(module: nn.Module) -> int | None:
    """Return the FLOPs of a gate for one token, if its weights are those of linear layers."""
    linear = [each.weight.numel() for each in module.modules() if isinstance(each, nn.Linear)]
    leaves = [each for each in module.modules() if not list(each.children())]
    other = [
        each
        for each in leaves
        if list(each.parameters(recurse=False)) and not isinstance(each, nn.Linear)
    ]
    return 2 * sum(linear) if linear and not other else None
