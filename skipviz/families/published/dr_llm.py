"""Dr.LLM: routers that say for a whole text whether a layer is skipped, run, or run twice.

Heakl et al., "Dr.LLM: dynamic layer routing in LLMs", 2510.12773; read from the reference code
(parameterlab/dr-llm, ``models/modeling_llama.py``). The mean over windows of three numbers decides,
by the first text of a batch for all of it. A skipped layer is not run. There is no score of one
number, so that a trace has decisions alone: how often each layer was called. Nothing but the
decision is made of the three numbers, so replacing the first, which skips, forces it: a layer that
a plan runs is run as often as its router says, 1 or 2 times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from skipviz.families.base import EventSink, Plan
from skipviz.families.causal_lm import backbone_of
from skipviz.families.hooks import after, hooked
from skipviz.families.layer_calls import observing_calls
from skipviz.families.powers import Traits
from skipviz.families.published.sequence_exits import one_decision
from skipviz.schema import Site

NEVER = 1e4
"""Far from what any router emits, and a number in every type of float."""


class _Forced(threading.local):
    """Which layers plans of this thread decide, by the backbone that has them."""

    def __init__(self) -> None:
        self.layers: dict[nn.Module, list[bool]] = {}


_FORCED = _Forced()


class DrLLM:
    """Layers that a text skips, runs, or repeats."""

    name = "dr-llm"

    def detect(self, model: nn.Module) -> bool:
        """Say whether the backbone has one router for each layer."""
        backbone = getattr(model, "model", None)
        routers, layers = getattr(backbone, "routers", None), getattr(backbone, "layers", None)
        return (
            isinstance(routers, nn.ModuleList)
            and isinstance(layers, nn.ModuleList)
            and len(routers) == len(layers)
            and hasattr(backbone, "num_windows")
        )

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every layer."""
        return [
            Site(
                layer=layer,
                unit="block",
                rule="argmax",
                polarity=None,
                skip_path="identity",
                kv="absent",
                computed_anyway=False,
                scope="batch",
                gate_flops=None,
            )
            for layer in range(len(_layers(model)))
        ]

    def traits(self, model: nn.Module) -> Traits:
        """Return what holds of repeated layers."""
        return Traits(batchable=False, in_backbone=True)

    def draw_plan(self, model: nn.Module, *, texts: int, tokens: int, seed: int) -> Plan:
        """Return layers to run at random, the same for all tokens."""
        runs = np.random.default_rng(seed).random((texts, 1, len(_layers(model)))) < 0.5
        return Plan(np.tile(runs, (1, tokens, 1)))

    @contextmanager
    def force(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Skip the layers that ``plan`` skips, and run the others as often as routers say.

        Raises
        ------
        InputError
            If the plan has another number of layers, or tokens that differ.
        """
        backbone: Any = backbone_of(model)
        routers = list(backbone.routers)
        runs, forced = one_decision(plan, len(routers))

        def override(run: bool) -> Any:
            def hook(_: nn.Module, args: Any, votes: Tensor) -> Tensor:
                made = votes.clone()
                made[..., 0] = -NEVER if run else NEVER
                return made

            return hook

        hooks = [
            after(router, override(run))
            for router, run, here in zip(routers, runs, forced, strict=True)
            if here
        ]
        outer = _FORCED.layers
        both = zip(forced, outer.get(backbone, forced), strict=True)
        _FORCED.layers = {**outer, backbone: [a or b for a, b in both]}
        try:
            with hooked(hooks, prepend=True):
                yield
        finally:
            _FORCED.layers = outer

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Count how often each layer is called in a forward of the backbone."""
        backbone = backbone_of(model)
        return observing_calls(
            backbone, list(_layers(model)), sink, forced=lambda: _FORCED.layers.get(backbone, [])
        )


def _layers(model: Any) -> nn.ModuleList:
    layers: nn.ModuleList = model.model.layers
    return layers
