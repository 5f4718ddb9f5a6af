"""FlexiDepth: a router in front of whole layers, and an adapter for tokens that skip.

Luo et al., "Adaptive layer-skipping in pre-trained LLMs", 2503.23798. The router reads normed
hidden states; where its sigmoid is above 0.5 the layer runs, its output weighted by the sigmoid.
Tokens that skip still give keys and values.
"""

from __future__ import annotations

from torch import nn

from skipviz.families.described.family import ForcibleDescribed
from skipviz.families.described.spec import GateSpec, has

ROUTER = "model.layers.{layer}.router"


class FlexiDepth(ForcibleDescribed):
    """Token-wise routers on blocks, beside an adapter called ``router_proj``."""

    def __init__(self) -> None:
        super().__init__(
            [
                GateSpec(
                    name="flexidepth",
                    module=ROUTER,
                    unit="block",
                    activation="sigmoid",
                    rule="gt",
                    threshold=0.5,
                    skip_path="adapter",
                    kv="computed",
                )
            ]
        )

    def detect(self, model: nn.Module) -> bool:
        """Say whether layers have such a router and its adapter."""
        return has(model, ROUTER) and has(model, "model.layers.{layer}.router_proj")
