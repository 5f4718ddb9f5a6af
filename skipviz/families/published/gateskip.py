"""GateSkip: a gate on what attention or MLP gives; the tokens it lets through least skip the unit.

Laitenberger et al., "GateSkip", 2510.13876; read from the reference code (Thiggel/GateSkip,
``experiment/models/gating/GatedWrapper.py`` at 17a0bd5, ``experiment/utils/threshold_finder.py`` at
3dc3280). The mean of a gate's values is a token's importance. Those at or under a quantile of the
importances of all tokens of the batch, padding and ends of texts apart, get zeros instead of the
unit's output. The unit is computed for all of them. Keys and values stay; where a cache of an older
transformers is given, the code copies those of the layer below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from skipviz.families.base import EventSink
from skipviz.families.hooks import Hook, after, hooked
from skipviz.schema import Site, Unit


class GateSkip:
    """Gates around attention and MLPs that rank the tokens of a batch."""

    name = "gateskip"

    def detect(self, model: nn.Module) -> bool:
        """Say whether attention or MLPs are wrapped with such a gate."""
        return bool(_wrapped(model))

    def sites(self, model: nn.Module) -> list[Site]:
        """Return every wrapped unit."""
        return [
            Site(
                layer=each.layer_idx,
                unit=_unit(each),
                rule="sample" if each.config.randomly_skip else "quantile",
                polarity=1,
                skip_path="zero",
                kv="computed",
                # What it does where it gathers depends on how many tokens skip.
                computed_anyway=None if getattr(each.config, "physically_skip", False) else True,
                scope="token",
                gate_flops=None,
            )
            for each in _wrapped(model)
        ]

    @contextmanager
    def observe(self, model: nn.Module, sink: EventSink) -> Iterator[None]:
        """Tell the importances that a wrapper has kept, and the threshold that they make."""

        def tell(site: int) -> Any:
            def hook(wrapper: Any, args: Any, result: Any) -> None:
                importance = wrapper.current_token_importance.detach()
                limit = float(wrapper.threshold)
                # Minus infinity: nothing is to be skipped.
                compared = torch.as_tensor(limit) if math.isfinite(limit) else None
                sink.on_gate(site, ran=importance > limit, score=importance, threshold=compared)

            return hook

        hooks: list[Hook] = [after(each, tell(site)) for site, each in enumerate(_wrapped(model))]
        with hooked(hooks):
            yield


def _wrapped(model: nn.Module) -> list[Any]:
    """Return the wrappers by layer, attention before MLP."""
    found: list[Any] = [
        module
        for module in model.modules()
        if hasattr(module, "current_token_importance") and hasattr(module, "current_gate_value")
    ]
    return sorted(found, key=lambda each: (each.layer_idx, _unit(each)))


def _unit(wrapper: Any) -> Unit:
    return "attn" if "attn" in wrapper.module_name else "mlp"
