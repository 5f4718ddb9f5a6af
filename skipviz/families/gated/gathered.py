"""Carries decisions out: only tokens that execute go through a unit.

Keys and values come from every token by their projections, as in the masked runtime, so both give
the same numbers. Attention of the gathered queries runs in blocks with the mask rows of its tokens,
each block over the keys up to its last token only: the keys stay causal in spite of the mask.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from skipviz.families.gated.modules import GatedUnit
from skipviz.families.llama import cache_given, rotated

CROSSOVER = 0.85
"""Share of executing tokens above which the whole unit is run: gathering more does not pay."""
QUERY_BLOCK = 128
"""Queries that share a range of keys."""


def gathered_mlp(
    unit: GatedUnit, states: Float[Tensor, "b t d"], execute: Bool[Tensor, "b t"]
) -> Float[Tensor, "b t d"]:
    """Return an MLP's output for executing tokens and its adapter's for the others."""
    ran = execute.flatten()
    count = int(ran.sum())
    if count == ran.numel():
        whole: Tensor = unit.unit(states)
        return whole
    if not count:
        skipped: Tensor = unit.adapter(states)
        return skipped
    if count > CROSSOVER * ran.numel():
        return _adapted(unit, unit.unit(states), states, execute)
    flat, rows = states.flatten(0, 1), ran.nonzero().squeeze(1)
    made = torch.empty_like(flat).index_copy(0, rows, unit.unit(flat.index_select(0, rows)))
    return _adapted(unit, made.view_as(states), states, execute)


def gathered_attention(
    unit: GatedUnit,
    states: Float[Tensor, "b t d"],
    execute: Bool[Tensor, "b t"],
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **more: Any,
) -> tuple[Float[Tensor, "b t d"], None]:
    """Return an attention's output for executing tokens and its adapter's for the others."""
    counts = execute.sum(dim=1)
    most = int(counts.max())
    if most > CROSSOVER * states.shape[1]:
        output = unit.unit(
            states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **more,
        )[0]
        whole = int(counts.sum()) == execute.numel()
        return (output if whole else _adapted(unit, output, states, execute)), None
    attention: Any = unit.unit
    cache = cache_given(more)
    if not most and cache is None:
        return unit.adapter(states), None  # keys that no token reads
    shape = (*states.shape[:2], -1, attention.head_dim)
    key = rotated(attention, attention.k_proj(states).view(shape), position_embeddings, "k_norm")
    key, value = key.transpose(1, 2), attention.v_proj(states).view(shape).transpose(1, 2)
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    if not most:
        return unit.adapter(states), None
    # Of each text the executing tokens in order, filled up to the most that a text has.
    picked = execute.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    given = states.gather(1, picked[..., None].expand(-1, -1, states.shape[-1]))
    rotary = tuple(
        each.expand(len(states), -1, -1).gather(1, picked[..., None].expand(-1, -1, each.shape[-1]))
        for each in position_embeddings
    )
    query = attention.q_proj(given).view(*given.shape[:2], -1, attention.head_dim)
    query = rotated(attention, query, (rotary[0], rotary[1]), "q_norm").transpose(1, 2)
    read = _attend(attention, query, key, value, picked, attention_mask, tokens=states.shape[1])
    output = attention.o_proj(read.transpose(1, 2).flatten(2))
    wanted = torch.arange(most, device=states.device) < counts[:, None]
    offset = torch.arange(len(states), device=states.device)[:, None] * states.shape[1]
    flat = torch.empty_like(states).flatten(0, 1)
    made = flat.index_copy(0, (picked + offset)[wanted], output[wanted])
    return _adapted(unit, made.view_as(states), states, execute), None


def _attend(
    attention: Any,
    query: Float[Tensor, "b h m c"],
    key: Float[Tensor, "b g k c"],
    value: Float[Tensor, "b g k c"],
    picked: Tensor,
    mask: Tensor | None,
    *,
    tokens: int,
) -> Float[Tensor, "b h m c"]:
    """Return what gathered queries read, block by block of queries."""
    seen = key.shape[2]
    places = picked + seen - tokens
    parts = []
    for start in range(0, query.shape[2], QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        # A mask may look further than a token's own place, as one of a static cache does not.
        last = seen if mask is not None else int(places[:, block].max()) + 1
        if mask is None:
            rows = torch.arange(last, device=key.device) <= places[:, None, block, None]
        else:
            index = picked[:, None, block, None].expand(-1, 1, -1, mask.shape[-1])
            rows = mask.expand(len(picked), -1, -1, -1).gather(2, index)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, :, block],
                key[:, :, :last],
                value[:, :, :last],
                attn_mask=rows,
                scale=attention.scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(parts, dim=2)


def _adapted(
    unit: GatedUnit,
    made: Float[Tensor, "b t d"],
    states: Float[Tensor, "b t d"],
    execute: Bool[Tensor, "b t"],
) -> Float[Tensor, "b t d"]:
    """Return outputs in which the adapter's stand where the unit was skipped."""
    rest = (~execute).flatten().nonzero().squeeze(1)
    skipped = unit.adapter(states.flatten(0, 1).index_select(0, rest))
    return made.flatten(0, 1).index_copy(0, rest, skipped).view_as(states)
