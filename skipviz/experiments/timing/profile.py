"""Splits the time of a forward into parts: every moment belongs to one of them.

Hooks say when attention, MLP, gate, adapter and head begin and end. What a unit does between its
decision and its end, and is neither of these, is gathering: choosing rows and putting results back,
turning queries and keys where the attention is not called as a whole, or masking. Products with
weights, and attention, that are called as functions are told by their weights.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from skipviz.analysis.timing.lost import PROFILE
from skipviz.analysis.timing.measured import TIMED_PARTS
from skipviz.experiments.timing.machine import Clock
from skipviz.experiments.timing.stopwatch import TimedText, decode_step, prefill
from skipviz.experiments.timing.weights_read import UNIT_MODULES
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import UnitFlops, decoder_layers
from skipviz.families.powers import CanFlip
from skipviz.models import SkipModel
from skipviz.progress import Meter

_PRODUCTS, _ATTENTION = (F.linear, torch.addmv), F.scaled_dot_product_attention


class Parts:
    """Adds up time by part; parts lie in each other, and the innermost has the time.

    Parameters
    ----------
    clock
        Takes the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stack: list[str] = ["other"]
        self._last = 0.0
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Take the time of this block, all of it, into parts."""
        self._stack = ["other"]
        self._last = self._clock()
        yield
        self._switch()

    def enter(self, part: str) -> None:
        """Begin a part."""
        self._switch()
        self._stack.append(part)

    def leave(self) -> None:
        """End the innermost part."""
        self._switch()
        self._stack.pop()

    def turn(self, part: str) -> None:
        """End the innermost part and begin another in its place."""
        self._switch()
        self._stack[-1] = part

    def _switch(self) -> None:
        now = self._clock()
        self.seconds[self._stack[-1]] += now - self._last
        self._last = now


class _Functions(TorchFunctionMode):
    """Tells products with weights of gates and adapters, and attention, called as functions."""

    def __init__(self, parts: Parts, of_weights: Mapping[int, str]) -> None:
        super().__init__()
        self._parts, self._of_weights = parts, of_weights

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        part = None
        if func in _PRODUCTS:  # the weight is the second argument of each
            part = self._of_weights.get(id(args[1] if len(args) > 1 else kwargs["weight"]))
        elif func is _ATTENTION:
            part = "attention"
        if part is None:
            return func(*args, **(kwargs or {}))
        self._parts.enter(part)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._parts.leave()


def can_profile(model: SkipModel) -> bool:
    """Say whether it is known what the parts of a model are."""
    sites = model.family.sites(model.model)
    known = UnitFlops.of(model.model) is not None
    return known and (not sites or isinstance(model.family, CanFlip))


def profiled(
    handles: Mapping[str, SkipModel],
    texts: Sequence[TimedText],
    *,
    rounds: int,
    clock: Clock,
    meter: Meter,
) -> pl.DataFrame:
    """Return the time of each part, per text in prefill and per token in decode.

    Parameters
    ----------
    handles, texts, rounds, clock, meter
        As of ``alternating``; models that ``can_profile``, each run ``rounds`` times per text.

    Returns
    -------
    pl.DataFrame
        Columns of ``PROFILE``: mean seconds of each part that took any.
    """
    rows: list[dict[str, Any]] = []
    for name, handle in handles.items():
        parts = {"prefill": Parts(clock), "decode": Parts(clock)}
        decoded = 0
        with torch.inference_mode():
            for _ in range(rounds):
                for text in texts:
                    with (
                        _watched(handle, parts["prefill"], alone=False),
                        parts["prefill"].running(),
                    ):
                        prefill(handle.model, text.ids, cache=False)
                    decoded += _decode(handle, text, parts["decode"])
                    meter.advance()
        counts = {"prefill": rounds * len(texts), "decode": decoded}
        rows += [
            {"phase": phase, "runtime": name, "part": part, "seconds": seconds / counts[phase]}
            for phase, each in parts.items()
            for part, seconds in each.seconds.items()
        ]
    return pl.DataFrame(rows, schema=PROFILE)


def _decode(handle: SkipModel, text: TimedText, parts: Parts) -> int:
    if text.decoded:
        cache = prefill(handle.model, text.ids[:, : text.start], cache=True).past_key_values
        with _watched(handle, parts, alone=True):
            for place in range(text.start, text.stop):
                with parts.running():
                    cache = decode_step(handle.model, text.ids[:, place : place + 1], cache)
    return text.decoded


@contextlib.contextmanager
def _watched(handle: SkipModel, parts: Parts, *, alone: bool) -> Iterator[None]:
    hooks, of_weights = _hooks(handle, parts, alone=alone)
    with hooked(hooks), _Functions(parts, of_weights):
        yield


def _hooks(handle: SkipModel, parts: Parts, *, alone: bool) -> tuple[list[Hook], dict[int, str]]:
    """Return hooks on the parts of a model, and the weights of those that are not called.

    Gathered, gates and adapters of a token that runs alone are no calls of modules, unless they
    are hooked; what is timed is to be what runs.
    """
    model = handle.model
    called = not (alone and handle.runtime == "gathered")
    units = handle.family.units(model) if isinstance(handle.family, CanFlip) else []
    hooks: list[Hook] = []
    of_weights: dict[int, str] = {}
    wrapped = set()
    for unit in units:
        wrapped.add(unit.module)
        hooks += [
            before(unit.module, _entering(parts, "gates")),
            after(unit.decide, lambda *_: parts.turn("gathering")),
            after(unit.module, _leaving(parts)),
        ]
        hooks += _around(unit.dense, parts, _unit_part(unit.kind == "attn"))
        for module, part in ((unit.gate, "gates"), (unit.adapter, "adapters")):
            if called:
                hooks += [before(module, _entering(parts, part)), after(module, _leaving(parts))]
            of_weights |= {id(each): part for each in module.parameters()}
    for layer in decoder_layers(model):
        for name in UNIT_MODULES:
            module = getattr(layer, name)
            if module not in wrapped:
                hooks += _around(module, parts, _unit_part(name == "self_attn"))
    hooks += _around(model.get_output_embeddings(), parts, "head")
    return hooks, of_weights


def _unit_part(attends: bool) -> str:
    return TIMED_PARTS[0] if attends else TIMED_PARTS[1]


def _around(module: nn.Module, parts: Parts, part: str) -> list[Hook]:
    """Return hooks on a module and, as they may be called without it, on its own modules."""
    return [
        hook
        for each in module.modules()
        for hook in (before(each, _entering(parts, part)), after(each, _leaving(parts)))
    ]


def _entering(parts: Parts, part: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        parts.enter(part)

    return hook


def _leaving(parts: Parts) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        parts.leave()

    return hook
