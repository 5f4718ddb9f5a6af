"""Which sites a static policy drops: by Block Influence, or greedily by measured loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from skipviz.errors import InputError
from skipviz.families.fixed_rates.modules import set_rates
from skipviz.families.gated.modules import GatedConfig, gated_units
from skipviz.families.hooks import Hook, after, before, hooked
from skipviz.families.llama import (
    UnitFlops,
    adapter_flops,
    decoder_layers,
    states_given,
    states_made,
)

WINDOWS_AT_ONCE = 4


def site_savings(model: Any, config: GatedConfig, *, length: int) -> list[float]:
    """Return what dropping each site saves, as a share of the budget, in running order.

    Parameters
    ----------
    model
        A model with gated units.
    config
        Their shape.
    length
        Tokens of a text; attention costs more in a longer one.
    """
    flops = UnitFlops.from_config(model.config)
    seen = (length + 1) / 2
    dense = model.config.num_hidden_layers * flops.layer(seen)
    skip = adapter_flops(model.config.hidden_size, config.adapter_rank)
    return [float(flops.saved(unit, seen, skip=skip) / dense) for _, unit, _ in gated_units(model)]


def equal_length(lengths: Sequence[int]) -> int:
    """Return the length of a text whose tokens see as many others, on average, as in these texts.

    Parameters
    ----------
    lengths
        Tokens of each text.
    """
    keys = sum(length * (length + 1) / 2 for length in lengths)
    return round(2 * keys / sum(lengths) - 1)


def rates_of(order: Sequence[int], savings: Sequence[float], budget: float) -> list[float]:
    """Return rates of 0 for the sites of an order, but for those that the budget cannot lose.

    The budget realised is the one asked for or a little more, never less, so that a static policy
    is not held back by what a whole site costs.

    Parameters
    ----------
    order
        Sites, those to drop first in front.
    savings
        What each site saves, as a share of the budget.
    budget
        Share to keep, 0 to 1.

    Raises
    ------
    ValueError
        If dropping all of them keeps more than the budget.
    """
    rates, kept = [1.0] * len(savings), 1.0
    for site in order:
        if kept - savings[site] >= budget:
            kept -= savings[site]
            rates[site] = 0.0
    if kept - budget > max(savings):
        raise InputError(
            f"Dropping every site keeps {kept:.3f} of the budget; {budget} is out of reach."
        )
    return rates


def lifted(rates: Sequence[float], savings: Sequence[float], budget: float) -> list[float]:
    """Return rates raised alike until they spend the budget.

    Gates cost FLOPs of their own, which a policy without gates may spend on running units.

    Parameters
    ----------
    rates
        Rates of every site, 0 to 1.
    savings
        What dropping each site for every token saves, as a share of the budget.
    budget
        Share to spend; rates that spend more already come back as they are.
    """
    saved = sum((1 - rate) * saving for rate, saving in zip(rates, savings, strict=True))
    keep = min(1.0, (1 - budget) / saved) if saved else 1.0
    return [1 - (1 - rate) * keep for rate in rates]


@torch.no_grad()
def block_influence(model: Any, windows: Int[Tensor, "n t"]) -> list[float]:
    """Return how much each site turns the hidden state: one minus the cosine of before and after.

    Men et al., "ShortGPT: Layers in large language models are more redundant than you expect",
    2024, here for attention and MLP apart.

    Parameters
    ----------
    model
        A model with gated units, all of them running.
    windows
        Token ids to measure on.
    """
    sums = [0.0] * len(list(gated_units(model)))
    hooks: list[Hook] = []
    layers = decoder_layers(model)

    def entering(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            entered[layer] = states_given(args, kwargs)

        return hook

    def leaving(site: int, layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            output = states_made(result)
            left = entered[layer] + output
            angle = F.cosine_similarity(entered[layer].float(), left.float(), dim=-1)
            sums[site] += float((1 - angle).mean()) * len(output)
            entered[layer] = left

        return hook

    entered: dict[int, Float[Tensor, "b t d"]] = {}
    for site, (layer, unit, module) in enumerate(gated_units(model)):
        if unit == "attn":
            hooks.append(before(layers[layer], entering(layer), with_kwargs=True))
        hooks.append(after(module, leaving(site, layer)))
    with hooked(hooks):
        for rows in windows.split(WINDOWS_AT_ONCE):
            model.model(rows.to(model.device), use_cache=False)
    return [total / len(windows) for total in sums]


@torch.no_grad()
def greedy_order(
    model: Any,
    windows: Int[Tensor, "n t"],
    *,
    savings: Sequence[float],
    budget: float,
    report: Callable[[int, float], None] = lambda site, loss: None,
) -> list[int]:
    """Return sites in the order in which dropping them costs the least loss for what it saves.

    Each round drops one more, with those before it dropped. A site that looked worse than the
    best does not get better by dropping others, or hardly ever, so a round measures sites from
    the best of the round before downwards and stops when the next cannot win (lazy greedy;
    Minoux, "Accelerated greedy algorithms", 1978).

    Parameters
    ----------
    model
        A model of fixed rates whose adapters have been fitted.
    windows
        Token ids to measure on; never those that are reported on.
    savings
        What each site saves, as a share of the budget.
    budget
        Where to stop.
    report
        Called with each site chosen and the loss with it dropped.
    """
    rates = [1.0] * len(savings)
    loss = _loss(model, windows, rates)
    bounds = [-float("inf")] * len(savings)
    order: list[int] = []
    kept = 1.0
    while kept > budget and len(order) < len(savings):
        measured: dict[int, float] = {}
        while True:
            open_sites = [site for site in range(len(savings)) if rates[site] == 1]
            best = min(open_sites, key=lambda site: bounds[site])
            if best in measured:
                break
            tried = _loss(model, windows, [0.0 if s == best else r for s, r in enumerate(rates)])
            measured[best] = tried
            bounds[best] = (tried - loss) / savings[best]
        rates[best], loss = 0.0, measured[best]
        kept -= savings[best]
        order.append(best)
        report(best, loss)
    return order


def _loss(model: Any, windows: Int[Tensor, "n t"], rates: Sequence[float]) -> float:
    set_rates(model, rates)
    total = 0.0
    for rows in windows.split(WINDOWS_AT_ONCE):
        ids = rows.to(model.device)
        logits = model(ids[:, :-1], use_cache=False).logits.flatten(0, 1)
        for part, wanted in zip(logits.split(128), ids[:, 1:].flatten().split(128), strict=True):
            total += float(F.cross_entropy(part.float(), wanted, reduction="sum"))
    return total / windows[:, 1:].numel()
