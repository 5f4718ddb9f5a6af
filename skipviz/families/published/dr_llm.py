"""Dr.LLM: routers that say for a whole text whether a layer is skipped, run, or run twice.

Heakl et al., "Dr.LLM: dynamic layer routing in LLMs", 2510.12773; read from the reference code
(parameterlab/dr-llm, ``models/modeling_llama.py``). The mean over windows of three numbers decides,
by the first text of a batch for all of it. A skipped layer is not run. There is no score of one
number, so that a trace has decisions alone: how often each layer was called.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from skipviz.families.base import EventSink
from skipviz.families.causal_lm import backbone_of
from skipviz.families.layer_calls import observing_calls
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

    def observe(self, model: nn.Module, sink: EventSink) -> AbstractContextManager[None]:
        """Count how often each layer is called in a forward of the backbone."""
        return observing_calls(backbone_of(model), list(_layers(model)), sink)


def _layers(model: Any) -> nn.ModuleList:
    layers: nn.ModuleList = model.model.layers
    return layers
