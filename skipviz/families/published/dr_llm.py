"""Dr.LLM: routers that say for a whole text whether a layer is skipped, run, or run twice.

Heakl et al., "Dr.LLM: dynamic layer routing in LLMs", 2510.12773; read from the reference code
(parameterlab/dr-llm, ``models/modeling_llama.py``). The mean over windows of three numbers decides,
by the first text of a batch for all of it. A skipped layer is not run. There is no score of one
number, so that a trace has decisions alone: how often each layer was called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from skipviz.families.base import EventSink
from skipviz.families.hooks import after, before, hooked
from skipviz.families.powers import Traits
from skipviz.schema import Site


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

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Count how often each layer is called in a forward of the backbone."""
        calls = [0] * len(_layers(model))
        backbone: Any = model.model

        def begin(_: nn.Module, args: Any, kwargs: Any) -> None:
            calls[:] = [0] * len(calls)

        def count(layer: int) -> Any:
            def hook(*_: Any) -> None:
                calls[layer] += 1

            return hook

        def tell(_: nn.Module, args: Any, result: Any) -> None:
            states: Tensor = result[0]
            for site, times in enumerate(calls):
                sink.on_gate(site, ran=torch.full(states.shape[:2], times, device=states.device))

        layers = [after(layer, count(number)) for number, layer in enumerate(_layers(model))]
        with hooked([before(backbone, begin, with_kwargs=True), *layers, after(backbone, tell)]):
            yield


def _layers(model: Any) -> nn.ModuleList:
    layers: nn.ModuleList = model.model.layers
    return layers
