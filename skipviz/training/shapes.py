"""The shapes that gates and exits are given, unless something else is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skipviz.families.exits.modules import ExitConfig
from skipviz.families.gated.modules import GatedConfig
from skipviz.families.llama import decoder_layers


def gate_shape(backbone: Any, *, learned: bool) -> GatedConfig:
    """Return the shape of gates on all layers but the first two and the last two.

    Parameters
    ----------
    backbone
        A dense model of the Llama layout.
    learned
        Whether the gates look at the token; False where rates are fixed.
    """
    return GatedConfig(
        first_layer=2,
        last_layer=len(decoder_layers(backbone)) - 3,
        gate_hidden=32 if learned else 0,
        adapter_rank=min(48, backbone.config.hidden_size),
    )


def exit_shape(backbone: Any, exits: Sequence[int] | None) -> ExitConfig:
    """Return the shape of exits after some layers, or at four places in the upper two thirds."""
    layers = len(decoder_layers(backbone))
    spread = [round(layers * share) - 1 for share in (0.4, 0.55, 0.7, 0.85)]
    return ExitConfig(
        exits=tuple(exits or spread),
        adapter_rank=min(64, backbone.config.hidden_size),
        head_rank=min(64, backbone.config.hidden_size),
    )
