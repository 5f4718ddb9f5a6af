"""How often layers are called in a forward: what decides where no gate can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from skipviz.errors import RecordingError
from skipviz.families.base import EventSink
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import states_made


def call_hooks(layers: Iterable[nn.Module], called: Callable[[int, Any], None]) -> Iterator[Hook]:
    """Yield hooks that call ``called(layer, result)`` after each call of a layer."""
    for number, layer in enumerate(layers):
        yield after(layer, lambda _, args, result, number=number: called(number, result))


@contextmanager
def observing_calls(
    backbone: nn.Module,
    layers: Sequence[nn.Module],
    sink: EventSink,
    *,
    forced: Callable[[], Sequence[bool]] = list,
) -> Iterator[None]:
    """Tell a sink after each forward of a backbone how often each layer was called.

    Parameters
    ----------
    backbone
        What calls the layers, for all tokens that it is given.
    layers
        The module of each site.
    sink
        What is told.
    forced
        Says for each layer whether a plan decides on it now; empty: none does.

    Raises
    ------
    RecordingError
        If a layer was called for some tokens of a forward alone.
    """
    calls = [0] * len(layers)
    shapes: set[torch.Size] = set()

    def begin(*_: Any) -> None:
        calls[:] = [0] * len(calls)
        shapes.clear()

    def count(layer: int, result: Any) -> None:
        calls[layer] += 1
        shapes.add(states_made(result).shape[:2])

    def tell(_: nn.Module, args: Any, result: Any) -> None:
        states: Tensor = result[0]
        if shapes - {states.shape[:2]}:
            raise RecordingError(
                f"Layers of this {type(backbone).__name__} ran for some tokens of a forward and "
                "not for others; how often each token ran them is not known from their calls."
            )
        planned = forced()
        for site, times in enumerate(calls):
            ran = torch.full(states.shape[:2], times, device=states.device)
            there = torch.full_like(ran, planned[site], dtype=torch.bool) if planned else None
            sink.on_gate(site, ran=ran, forced=there)

    with hooked([before(backbone, begin), *call_hooks(layers, count), after(backbone, tell)]):
        yield
