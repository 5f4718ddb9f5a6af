"""Router-Tuning (MindSkip): a linear router on attention, MLP or block, by token or by text.

He et al., "Router-tuning: a simple and effective approach for enabling dynamic-depth in
transformers", 2410.13184; read from the reference code (``utils/model/model_patch.py`` of
CASE-Lab-UMD/Router-Tuning-Mixture-of-Depths).
The layer says which unit (``route_target``), for whom (``route_level``) and above which
``threshold``. A decision for a text is taken on the mean of all its tokens, later ones too. The
unit is computed for every token and masked.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from skipviz.families.described.family import ForcibleDescribed
from skipviz.families.described.spec import GateSpec

ROUTER = "model.layers.{layer}.router"


class RouterTuning(ForcibleDescribed):
    """Routers that were put into stock layers."""

    def __init__(self) -> None:
        super().__init__([_spec(unit="attn", level="sequence", layers=None)])

    def detect(self, model: nn.Module) -> bool:
        """Say whether layers say what is routed, and by what threshold."""
        return bool(_routed(model))

    def specs_of(self, model: nn.Module) -> list[GateSpec]:
        """Return one description for each unit and scope."""
        groups: dict[tuple[str, str], list[int]] = {}
        for layer, module in _routed(model).items():
            groups.setdefault((module.route_target, module.route_level), []).append(layer)
        return [
            _spec(unit=unit, level=level, layers=tuple(layers))
            for (unit, level), layers in groups.items()
        ]


def _routed(model: nn.Module) -> dict[int, Any]:
    layers: dict[int, Any] = {}
    for name, module in model.named_modules():
        number = name.removeprefix("model.layers.")
        if name == number or not number.isdigit():
            continue
        if hasattr(module, "route_target") and hasattr(module, "router"):
            layers[int(number)] = module
    return layers


def _spec(*, unit: str, level: str, layers: tuple[int, ...] | None) -> GateSpec:
    return GateSpec(
        name="router-tuning",
        module=ROUTER,
        unit="attn" if unit == "attn" else "mlp" if unit == "mlp" else "block",
        layers=layers,
        activation="sigmoid",
        rule="ge",
        threshold="model.layers.{layer}:threshold",
        scope="token" if level == "token" else "sequence",
        skip_path="identity",
        kv="computed",
        computed_anyway=True,
    )
