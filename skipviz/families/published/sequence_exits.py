"""What encoders that a text leaves as a whole have in common: the layers that it reaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from skipviz.families.base import EventSink
from skipviz.families.hooks import Hook
from skipviz.families.layer_calls import call_hooks
from skipviz.families.llama import states_made
from skipviz.families.powers import Traits
from skipviz.schema import Rule, Scope, Site

OF_ENCODERS = Traits(batchable=False, in_backbone=True, silent=True, predicts=False)
"""They see the whole text, and predict a class of it. Layers that it does not reach say nothing."""


def exit_sites(layers: int, *, rule: Rule, polarity: Literal[1, -1], scope: Scope) -> list[Site]:
    """Return the layers behind the first: each runs if the exit before it lets the text go on."""
    return [
        Site(
            layer=layer,
            unit="block",
            rule=rule,
            polarity=polarity,
            skip_path="identity",
            kv="absent",
            computed_anyway=False,
            scope=scope,
            gate_flops=None,
        )
        for layer in range(1, layers)
    ]


def reached(layers: Sequence[nn.Module], sink: EventSink) -> Iterator[Hook]:
    """Return hooks that tell of each layer behind the first that it ran, when it has."""

    def tell(number: int, result: Any) -> None:
        states = states_made(result)
        ran = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        sink.on_gate(number, ran=ran)

    return call_hooks(layers[1:], tell)


def asked(
    sink: EventSink, layer: int, score: Tensor, threshold: Tensor, *, shape: tuple[int, int]
) -> None:
    """Tell what an exit behind a layer found; whether the next layer runs is seen when it does.

    Parameters
    ----------
    sink
        What is told.
    layer
        The layer in front of the exit.
    score
        One number, of the text.
    threshold
        What it is compared with.
    shape
        Texts and tokens.
    """
    never = torch.zeros(shape, dtype=torch.bool, device=score.device)
    whole = score.detach().float().reshape(-1, 1).expand(shape)
    sink.on_gate(layer, ran=never, score=whole, threshold=threshold)
