from __future__ import annotations

import torch
from torch import Tensor, nn

from skipviz.families.gated.modules import gated_units
from skipviz.training.recipe import Recipe
from skipviz.training.warmstart import fit_adapters
from tests import tiny

RECIPE = Recipe(
    budget=0.7, steps=6, batch=2, length=12, gate_lr=0.05, adapter_lr=0.05, further_budgets=(0.9,)
)


def windows(count: int = 12, length: int = 13) -> Tensor:
    return torch.randint(3, 260, (count, length), generator=torch.Generator().manual_seed(1))


class Affine(nn.Module):
    """A unit that is what an adapter of rank two can be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, 2, bias=False)
        self.up = nn.Linear(2, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.up(self.down(hidden_states))  # type: ignore[no-any-return]


def test_warm_start_finds_a_unit_of_low_rank() -> None:
    model = tiny.gated(seed=0)
    planted = [unit for _, kind, unit in gated_units(model) if kind == "mlp"]
    for unit in planted:
        unit.unit = Affine(32)
        nn.init.normal_(unit.unit.up.bias)
    fit_adapters(model, windows(200), batch=20)
    for unit in planted:
        seen: list[Tensor] = []
        handle = unit.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            model(windows(20))
            wanted, found = unit.unit(seen[0]), unit.adapter(seen[0])
        handle.remove()
        assert (found - wanted).norm() < 0.02 * wanted.norm()
    assert all(not unit.decide._forward_hooks for _, _, unit in gated_units(model))
