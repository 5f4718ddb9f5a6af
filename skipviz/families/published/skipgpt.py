"""SkipGPT: two routers per layer, one for attention and one for the MLP, drawn at random.

Zhao et al., "SkipGPT", 2506.04179; read from the reference code (EIT-NLP/SkipGPT,
``router_attn_mlp.py``). Routers give two numbers per token, of which the first executes; the code
draws by Gumbel softmax also when it evaluates, so two runs of a text differ. What was drawn stands
in ``routing_matrix``, where 1 means skip. Units are computed for every token and masked.
"""

from __future__ import annotations

from torch import nn

from skipviz.families.described.family import ForcibleDescribed
from skipviz.families.described.spec import GateSpec, has

LAYER = "model.layers.{layer}"


def _spec(unit: str, router: str, key: str) -> GateSpec:
    return GateSpec(
        name="skipgpt",
        module=f"{LAYER}.{router}",
        unit="attn" if unit == "attn" else "mlp",
        pick="difference",
        rule="sample",
        executes="low",
        mask=f"{LAYER}:routing_matrix.{key}",
        mask_executes=0,
        skip_path="identity",
        kv="computed",
        computed_anyway=True,
    )


class SkipGPT(ForcibleDescribed):
    """Routers on attention and MLP whose decisions are drawn."""

    def __init__(self) -> None:
        super().__init__(
            [
                _spec("attn", "router_attention", "attention"),
                _spec("mlp", "router_mlp", "mlp"),
            ]
        )

    def detect(self, model: nn.Module) -> bool:
        """Say whether layers have both routers."""
        return has(model, f"{LAYER}.router_attention") and has(model, f"{LAYER}.router_mlp")
