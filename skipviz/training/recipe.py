"""What a run of training depends on, beside model and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from skipviz.errors import InputError

PRICE_GAINS = (4.0, 0.1)
"""Nats for an excess of the whole budget: in this step alone, and for all that follow."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run of training depends on, beside model and texts.

    Attributes
    ----------
    budget
        Share of dense attention and MLP FLOPs to reach, 0 to 1, over all layers.
    further_budgets
        Budgets that the same gates are to serve with other thresholds: every other step runs at
        one of them in turn, so that the adapters see their decisions too.
    steps
        Optimiser steps.
    batch, length
        Windows per step, and tokens in a window.
    gate_lr, adapter_lr
        Peak learning rates of AdamW.
    kl_weight, ce_weight
        Weights of the divergence from the dense model and of the cross-entropy with the text.
    descent
        Share of the steps over which the budget falls from 1 to its target.
    price
        Price to start from, in nats for the whole dense budget; 0 for fresh gates, or where an
        earlier run settled when its gates are trained on.
    collapse_after
        Steps after which a gate that no longer chooses stops the run; 0 never does.
    dtype
        Type that the backbone runs in, ``float32`` or ``bfloat16``; what learns is float32.
    seed
        Seed of gates, texts and their order.
    """

    budget: float = 0.8
    further_budgets: tuple[float, ...] = ()
    steps: int = 1000
    batch: int = 2
    length: int = 256
    gate_lr: float = 2e-3
    adapter_lr: float = 1e-3
    kl_weight: float = 0.9
    ce_weight: float = 0.1
    descent: float = 0.25
    price: float = 0.0
    collapse_after: int = 200
    dtype: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        for budget in self.budgets:
            if not 0 < budget < 1:
                raise InputError(f"budget={budget} must lie between 0 and 1, as 0.8 does.")
        if len(set(self.budgets)) < len(self.budgets):
            raise InputError(f"budgets={self.budgets} must differ from each other.")
        for name in ("steps", "batch", "length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("ce_weight", "kl_weight", "descent"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must lie between 0 and 1.")

    @property
    def budgets(self) -> tuple[float, ...]:
        """All budgets, the main one first."""
        return (self.budget, *self.further_budgets)

    def budget_of(self, step: int) -> float:
        """Return the budget that a step serves."""
        if not self.further_budgets or step % 2 == 0:
            return self.budget
        return self.further_budgets[step // 2 % len(self.further_budgets)]

    def generator_of(self, step: int) -> torch.Generator:
        """Return what a step draws by, whether or not the run was resumed before it."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)

    def descended(self, step: int) -> float:
        """Return the share of the way from 1 to its budget that a step has behind it."""
        descent = self.descent * self.steps
        return min(1.0, step / descent) if descent else 1.0

    def budget_at(self, step: int) -> float:
        """Return the budget aimed at: falling linearly from 1, then held."""
        return 1.0 - self.descended(step) * (1.0 - self.budget_of(step))


def fast_dtype(device: str) -> str:
    """Return ``bfloat16`` where the device has units for it, else ``float32``."""
    # Older versions of torch cannot say.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = device != "cpu" or any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if native else "float32"
