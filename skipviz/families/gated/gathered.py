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

from skipviz.families.gated.modules import Gate, GatedUnit
from skipviz.families.llama import cache_given, rotated

CROSSOVER = 0.85
"""Share of executing tokens above which the whole unit is run: gathering more does not pay."""
QUERY_BLOCK = 64
"""Queries that share a range of keys."""


class Gathering:
    """Runs one unit for its executing tokens alone; what a ``GatedUnit`` calls instead of masking.

    The first matrices of gate and adapter are kept as one, since both read the same states: for a
    single token their calls cost more than their arithmetic.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._first: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Gathering:
        return Gathering()

    def __call__(self, unit: GatedUnit, states: Float[Tensor, "b t d"], **given: Any) -> Any:
        """Score, decide, and carry the decisions out."""
        # Nothing is asked where a policy decides alike for all and nobody listens or forces.
        always = None if unit.decide._forward_hooks else getattr(unit.gate, "always", None)
        if always:
            return unit.unit(states, **given)
        if always is None:
            score, low = self._look(unit, states)
            execute = unit.decide(score)
        else:
            execute, low = torch.zeros_like(states[..., 0], dtype=torch.bool), None
        carry_out = gathered_attention if unit.kind == "attn" else gathered_mlp
        return carry_out(unit, states, execute, low, **given)

    def _look(self, unit: GatedUnit, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scores, and what the adapter makes first of every token, if both are one."""
        gate, adapter = unit.gate, unit.adapter
        if not isinstance(gate, Gate) or states.dtype != gate.down.weight.dtype:
            return unit.gate(states), None
        weights = (gate.down.weight, gate.down.bias, adapter.down.weight)
        key = tuple((each.data_ptr(), each._version, each.dtype) for each in weights)
        if self._first is None or key != self._key:
            with torch.inference_mode(False), torch.no_grad():
                bias = F.pad(gate.down.bias, (0, len(adapter.down.weight)))
                self._first = torch.cat([gate.down.weight, adapter.down.weight]), bias
            self._key = key
        both = F.linear(states, *self._first)
        hidden, low = both.split([len(gate.down.weight), len(adapter.down.weight)], dim=-1)
        return gate.up(F.gelu(hidden)).squeeze(-1), low


def gathered_mlp(
    unit: GatedUnit,
    states: Float[Tensor, "b t d"],
    execute: Bool[Tensor, "b t"],
    low: Float[Tensor, "b t r"] | None = None,
) -> Float[Tensor, "b t d"]:
    """Return an MLP's output for executing tokens and its adapter's for the others.

    Parameters
    ----------
    unit
        The MLP with its gate and its adapter.
    states
        Normalised hidden states.
    execute
        True where the MLP runs.
    low
        What the adapter's first matrix made of them; None: not known.
    """
    ran = execute.flatten()
    count = int(ran.sum())
    if count == ran.numel():
        whole: Tensor = unit.unit(states)
        return whole
    if not count:
        return _skipped(unit, states, low)
    if count > CROSSOVER * ran.numel():
        return _adapted(unit, unit.unit(states), states, execute, low)
    flat, rows = states.flatten(0, 1), ran.nonzero().squeeze(1)
    made = torch.empty_like(flat).index_copy_(0, rows, unit.unit(flat.index_select(0, rows)))
    return _adapted(unit, made.view_as(states), states, execute, low)


def gathered_attention(
    unit: GatedUnit,
    states: Float[Tensor, "b t d"],
    execute: Bool[Tensor, "b t"],
    low: Float[Tensor, "b t r"] | None = None,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **more: Any,
) -> tuple[Float[Tensor, "b t d"], None]:
    """Return an attention's output for executing tokens and its adapter's for the others.

    Parameters
    ----------
    unit, states, execute, low
        As for ``gathered_mlp``.
    position_embeddings, attention_mask, more
        As transformers gives them to an attention.
    """
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
        return (output if whole else _adapted(unit, output, states, execute, low)), None
    attention: Any = unit.unit
    cache = cache_given(more)
    if not most and cache is None:
        return _skipped(unit, states, low), None  # keys that no token reads
    shape = (*states.shape[:2], -1, attention.head_dim)
    key = rotated(attention, attention.k_proj(states).view(shape), position_embeddings, "k_norm")
    key, value = key.transpose(1, 2), attention.v_proj(states).view(shape).transpose(1, 2)
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    if not most:
        return _skipped(unit, states, low), None
    # Of each text the executing tokens in order, filled up to the most that a text has.
    picked = execute.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    given = states.gather(1, picked[..., None].expand(-1, -1, states.shape[-1]))
    rotary = tuple(
        each.expand(len(states), -1, -1).gather(1, picked[..., None].expand(-1, -1, each.shape[-1]))
        for each in position_embeddings
    )
    query = attention.q_proj(given).view(*given.shape[:2], -1, attention.head_dim)
    query = rotated(attention, query, (rotary[0], rotary[1]), "q_norm").transpose(1, 2)
    read = attend_gathered(
        attention, query, key, value, picked, attention_mask, tokens=states.shape[1]
    )
    output = attention.o_proj(read.transpose(1, 2).flatten(2))
    wanted = torch.arange(most, device=states.device) < counts[:, None]
    offset = torch.arange(len(states), device=states.device)[:, None] * states.shape[1]
    flat = torch.empty_like(states).flatten(0, 1)
    made = flat.index_copy_(0, (picked + offset)[wanted], output[wanted])
    return _adapted(unit, made.view_as(states), states, execute, low), None


def attend_gathered(
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
    low: Float[Tensor, "b t r"] | None,
) -> Float[Tensor, "b t d"]:
    """Put the adapter's outputs where the unit was skipped, in place, and return all."""
    rest = (~execute).flatten().nonzero().squeeze(1)
    few = None if low is None else low.flatten(0, 1).index_select(0, rest)
    given = states.flatten(0, 1).index_select(0, rest) if few is None else states
    return made.flatten(0, 1).index_copy_(0, rest, _skipped(unit, given, few)).view_as(states)


def _skipped(unit: GatedUnit, states: Tensor, low: Tensor | None) -> Tensor:
    """Return what stands in for a unit, from normalised states or from the adapter's first part."""
    if low is None:
        made: Tensor = unit.adapter(states)
        return made
    up = unit.adapter.up
    return F.linear(low, up.weight, up.bias)
