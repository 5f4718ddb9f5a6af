"""Reads the budget off a training forward, with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipviz.families.gated.modules import GatedConfig, gated_units, straight_through
from skipviz.families.hooks import after, hooked
from skipviz.families.llama import UnitFlops, adapter_flops, gate_flops


class BudgetMeter:
    """Reads decisions off the gates of a training forward and turns them into a budget.

    Parameters
    ----------
    model
        The gated model.
    config
        Its gates.
    """

    def __init__(self, model: Any, config: GatedConfig) -> None:
        flops = UnitFlops.from_config(model.config)
        width, layers = model.config.hidden_size, model.config.num_hidden_layers
        self._flops = flops
        self._layers = layers
        self._adapter = adapter_flops(width, config.adapter_rank)
        self._gate = gate_flops(width, config.gate_hidden)
        self._margins: list[tuple[str, Tensor]] = []
        self._rates: list[Tensor] = []
        self._gates = [(unit, module.decide) for _, unit, module in gated_units(model)]

    def listening(self) -> AbstractContextManager[None]:
        """Hear the decisions of a forward in this block."""
        return hooked(after(decide, self._hook(unit)) for unit, decide in self._gates)

    def _hook(self, unit: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, execute: Tensor) -> None:
            self._margins.append((unit, straight_through(args[0] - module.threshold, execute)))
            # The mean of the other is off by rounding, which hides a gate that never skips.
            self._rates.append(execute.float().mean())

        return hook

    def read(self) -> tuple[Float[Tensor, ""], Float[Tensor, " sites"]]:
        """Return the realised budget, with gradient, and each site's rate; then forget."""
        length = self._margins[0][1].shape[-1]
        device = self._margins[0][1].device
        seen = torch.arange(1, length + 1, device=device).float()
        dense = self._layers * torch.as_tensor(self._flops.layer(seen)).mean()
        spent = dense + len(self._margins) * self._gate
        for unit, execute in self._margins:
            saved = self._flops.saved(unit, seen, skip=self._adapter)
            spent = spent - ((1 - execute) * saved).mean()
        rates = torch.stack(self._rates)
        self._margins.clear()
        self._rates.clear()
        return spent / dense, rates
