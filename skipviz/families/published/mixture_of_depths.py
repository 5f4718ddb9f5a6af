"""Mixture-of-Depths: the highest scores of a text run a layer, the other tokens pass by it.

Raposo et al., "Mixture-of-Depths", 2404.02258, in the form of the package ``mixture-of-depth``
(astramind-ai/Mixture-of-depths, ``MoD/MoD.py``): the layer stands in ``block``, and only scores
above the k-th largest run, so that k - 1 tokens do. Which tokens are ranked highest depends on
later tokens. Skipped tokens give no keys and values.
"""

from __future__ import annotations

from torch import nn

from skipviz.families.described.family import Described
from skipviz.families.described.spec import GateSpec, has

LAYER = "model.layers.{layer}"


class MixtureOfDepths(Described):
    """Routers that rank the tokens of a text."""

    def __init__(self) -> None:
        super().__init__(
            [
                GateSpec(
                    name="mixture-of-depths",
                    module=f"{LAYER}.router",
                    unit="block",
                    rule="topk",
                    k=f"{LAYER}:capacity",
                    strict=True,
                    skip_path="identity",
                    kv="absent",
                    computed_anyway=False,
                )
            ]
        )

    def detect(self, model: nn.Module) -> bool:
        """Say whether layers have a router that predicts weights, beside a block."""
        return has(model, f"{LAYER}.router.weight_predictor") and has(model, f"{LAYER}.block")
