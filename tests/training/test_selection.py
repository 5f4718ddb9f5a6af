from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from skipviz.families.fixed_rates.modules import install_rates
from skipviz.families.gated.modules import gated_units
from skipviz.families.llama import adapter_flops
from skipviz.training.selection import (
    block_influence,
    equal_length,
    greedy_order,
    lifted,
    rates_of,
    site_savings,
)
from skipviz.training.warmstart import fit_adapters
from tests import tiny

SAVINGS = [0.02, 0.1, 0.02, 0.1]
WINDOWS = torch.randint(3, 260, (12, 17), generator=torch.Generator().manual_seed(2))


class Scaled(nn.Module):
    """A unit turned up or down."""

    def __init__(self, unit: nn.Module, factor: float) -> None:
        super().__init__()
        self.unit = unit
        self.factor = factor

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, None] | Tensor:
        result = self.unit(*args, **kwargs)
        if isinstance(result, tuple):
            return result[0] * self.factor, None
        return result * self.factor  # type: ignore[no-any-return]


def planted(factors: list[float]) -> nn.Module:
    """A model whose sites matter as much as they are turned up."""
    model = tiny.backbone(seed=0)
    install_rates(model, tiny.GATES, seed=0)
    for (_, _, unit), factor in zip(gated_units(model), factors, strict=True):
        unit.unit = Scaled(unit.unit, factor)
    return model


def test_savings_are_what_the_trace_would_count() -> None:
    model = planted([1.0] * 8)
    found = site_savings(model, tiny.GATES, length=9)
    attention, skip = 4_096 + 128 * 5, adapter_flops(32, 2)
    dense = 6 * (attention + 12_288)
    assert found[0] == pytest.approx((attention - skip) / dense)
    assert found[1] == pytest.approx((12_288 - skip) / dense)
    assert found[::2] == [found[0]] * 4


def test_sites_are_dropped_while_the_budget_allows() -> None:
    assert rates_of([1, 0, 3, 2], SAVINGS, 0.9) == [1, 0, 1, 1]
    assert rates_of([1, 0, 3, 2], SAVINGS, 0.88) == [0, 0, 1, 1]
    # The next in order no longer fits, a cheaper one behind it does.
    assert rates_of([1, 3, 0, 2], SAVINGS, 0.86) == [0, 0, 0, 1]


def test_a_budget_below_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keeps 0\.760 of the budget; 0\.5 is out of reach"):
        rates_of([0, 1, 2, 3], SAVINGS, 0.5)


def test_lifted_rates_spend_the_budget_and_keep_their_order() -> None:
    rates = [0.5, 0.2, 1.0, 0.0]
    raised = lifted(rates, SAVINGS, 0.9)
    spent = 1 - sum((1 - r) * s for r, s in zip(raised, SAVINGS, strict=True))
    assert spent == pytest.approx(0.9)
    assert raised[2] == 1
    assert raised[0] > raised[1] > raised[3] > 0
    assert lifted(rates, SAVINGS, 0.5) == pytest.approx(rates)
    assert lifted([1.0] * 4, SAVINGS, 0.5) == [1.0] * 4


def test_block_influence_is_the_turn_of_the_hidden_state() -> None:
    factors = [1e-4, 0.02, 0.5, 3.0, 0.1, 1.0, 0.01, 0.3]
    found = block_influence(planted(factors), WINDOWS)
    assert found[0] == min(found)
    assert found[3] == max(found)
    assert found[1] < found[2]

    model, states = tiny.backbone(seed=0), []
    layer = model.model.layers[2]
    handle = layer.mlp.register_forward_hook(lambda *hook: states.append(hook[2]))
    layer.register_forward_hook(lambda *hook: states.append(hook[2]))
    with torch.no_grad():
        model(WINDOWS)
    handle.remove()
    after, before = states[1], states[1] - states[0]
    by_hand = 1 - torch.cosine_similarity(before, after, dim=-1).mean()
    assert block_influence(planted([1.0] * 8), WINDOWS)[3] == pytest.approx(
        by_hand.item(), abs=1e-5
    )


def test_hooks_come_out_again() -> None:
    model = planted([1.0] * 8)
    block_influence(model, WINDOWS)
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.slow
def test_greedy_drops_what_costs_least_for_what_it_saves() -> None:
    factors = [1.0, 1e-3, 1.0, 1.0, 1.0, 1e-3, 1.0, 1.0]
    model = planted(factors)
    torch.manual_seed(0)
    # Text that the model wrote: whatever changes its predictions costs loss.
    written = model.generate(  # type: ignore[operator]
        WINDOWS[:, :1].repeat(5, 1), max_new_tokens=32, min_new_tokens=32, do_sample=True, top_k=0
    )
    fit_adapters(model, written, batch=20)
    savings = site_savings(model, tiny.GATES, length=16)
    losses: list[float] = []
    order = greedy_order(
        model,
        written,
        savings=savings,
        budget=1 - savings[1] - savings[5] + 1e-6,
        report=lambda site, loss: losses.append(loss),
    )
    assert set(order) == {1, 5}
    assert len(losses) == 2


def test_greedy_stops_where_everything_is_dropped() -> None:
    model = planted([1.0] * 8)
    savings = site_savings(model, tiny.GATES, length=16)
    assert sorted(greedy_order(model, WINDOWS, savings=savings, budget=0.0)) == list(range(8))


def test_equal_length_has_tokens_that_see_as_many() -> None:
    lengths = [3, 9, 30]
    seen = [position for length in lengths for position in range(1, length + 1)]
    equal = range(1, equal_length(lengths) + 1)
    assert sum(equal) / len(equal) == pytest.approx(sum(seen) / len(seen), abs=0.5)
    assert equal_length([7, 7]) == 7
