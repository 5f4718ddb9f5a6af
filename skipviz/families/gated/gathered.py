"""Carries decisions out: only tokens that execute go through a unit.

Keys and values come from every token by their projections, as in the masked runtime, so both give
the same numbers. Attention of the gathered queries runs in blocks with the mask rows of its tokens,
each block over the keys up to its last token only: the keys stay causal in spite of the mask.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from skipviz.families.gated.held_keys import HeldKeys
from skipviz.families.gated.looking import Look
from skipviz.families.gated.modules import Gate, GatedUnit
from skipviz.families.gated.one_token import Turns, one_token
from skipviz.families.llama import cache_given, kept_in, rotated

CROSSOVER = 0.9
"""Share of executing tokens above which the whole unit is run: gathering more does not pay."""
QUERY_BLOCK = 128
"""Queries that share a range of keys."""
ROWS_FILLED = 32
"""In half precision on a CPU, rows are filled up to a multiple of this.

Its libraries compile a kernel for each number of rows, which takes longer than to compute these.
"""


class Gathering:
    """Runs one unit for its executing tokens alone: what a ``GatedUnit`` calls, not masking."""

    def __init__(self, turns: Turns) -> None:
        self._look = Look()
        self._turns = turns
        self._held = HeldKeys()

    def __deepcopy__(self, memo: dict[int, Any]) -> Gathering:
        return Gathering(copy.deepcopy(self._turns, memo))

    def __call__(self, unit: GatedUnit, states: Float[Tensor, "b t d"], **given: Any) -> Any:
        """Score, decide, and carry the decisions out."""
        # Nothing is asked where a policy decides alike for all and nobody listens or forces.
        always = None
        if type(unit._modules["gate"]) is not Gate and not unit.decide._forward_hooks:
            always = getattr(unit.gate, "always", None)
        if always is None and states.numel() == states.shape[-1] and not _all_are_heard():
            return one_token(unit, states, self._look, self._turns, self._held, **given)
        if always:
            return unit.unit(states, **given)
        rows = states.flatten(0, 1)
        if always is False:
            execute = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        else:
            execute = unit.decide(unit.gate(states))
        executing = execute.flatten().nonzero().squeeze(1)
        attends = unit.kind == "attn"
        whole = len(executing) > CROSSOVER * len(rows)
        if whole:
            result = unit.unit(states, **given)
            output = (result[0] if attends else result).flatten(0, 1)
        else:
            if attends:
                ran = attention_of(unit.unit, states, execute, executing, **given)
            else:
                ran = None
                if len(executing):
                    ran = rows_through(unit.unit, rows.index_select(0, executing))
            kind = rows.dtype if ran is None else ran.dtype  # autocast has its own
            output = torch.empty_like(rows, dtype=kind)
            if ran is not None:
                output = output.index_copy_(0, executing, ran)
        if len(executing) < len(rows):
            skipped = (~execute).flatten().nonzero().squeeze(1)
            made = rows_through(unit.adapter, rows.index_select(0, skipped))
            # What a unit returned is not written to: somebody may have kept it.
            put = output.index_copy if whole else output.index_copy_
            output = put(0, skipped, made.to(output.dtype))
        output = output.view(states.shape)
        return (output, None) if attends else output


def _all_are_heard() -> bool:
    """Return whether every part is to be called as a module: for gradients, or hooks on all."""
    return torch.is_grad_enabled() or bool(_has_any_global_hook())


def rows_through(module: nn.Module, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    """Return what a module makes of rows, of as many as are computed fast."""
    missing = -len(rows) % ROWS_FILLED
    if not missing or rows.dtype.itemsize > 2 or rows.device.type != "cpu":
        made: Tensor = module(rows)
        return made
    made = module(F.pad(rows, (0, 0, 0, missing)))
    return made[: len(rows)]


def attention_of(
    attention: Any,
    states: Float[Tensor, "b t d"],
    execute: Bool[Tensor, "b t"],
    executing: Int[Tensor, " n"],
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **more: Any,
) -> Float[Tensor, "n d"] | None:
    """Return an attention's output for executing tokens, after keys and values of all are kept.

    Parameters
    ----------
    attention
        The attention module of a layer.
    states
        Normalised hidden states.
    execute
        True where the attention runs.
    executing
        The same as places among the tokens of all texts.
    position_embeddings, attention_mask, more
        As transformers gives them to an attention.

    Returns
    -------
    Tensor or None
        A row per executing token; None: no token executes.
    """
    cache = cache_given(more)
    if not len(executing) and cache is None:
        return None  # keys that no token reads
    texts, tokens, _ = states.shape
    shape = (texts, tokens, -1, attention.head_dim)
    key = rotated(attention, attention.k_proj(states).view(shape), position_embeddings, "k_norm")
    key, value = key.transpose(1, 2), attention.v_proj(states).view(shape).transpose(1, 2)
    if cache is not None:
        key, value = kept_in(cache, attention, key, value, more)
    if not len(executing):
        return None
    cosine, sine = (
        each.expand(texts, -1, -1).flatten(0, 1).index_select(0, executing)
        for each in position_embeddings
    )
    given = states.flatten(0, 1).index_select(0, executing)
    query = rows_through(attention.q_proj, given).view(len(executing), -1, attention.head_dim)
    query = rotated(attention, query, (cosine, sine), "q_norm")
    if texts == 1:
        read = _attend(attention, query[None], key, value, executing[None], attention_mask, tokens)
        return rows_through(attention.o_proj, read[0])
    # Attention wants as many queries of every text: filled up to the most that a text has. Texts
    # without any are left out.
    some = execute.any(dim=1).nonzero().squeeze(1)
    if len(some) < texts:
        execute, key, value = (each.index_select(0, some) for each in (execute, key, value))
        if attention_mask is not None and len(attention_mask) > 1:
            attention_mask = attention_mask.index_select(0, some)
    counts = execute.sum(dim=1)
    most = int(counts.max())
    filled = torch.arange(most, device=states.device) < counts[:, None]
    queries = query.new_zeros(len(some), most, *query.shape[1:])
    queries[filled] = query
    places = executing.new_zeros(len(some), most)
    places[filled] = executing % tokens
    read = _attend(attention, queries, key, value, places, attention_mask, tokens)
    return rows_through(attention.o_proj, read[filled])


def _attend(
    attention: Any,
    query: Float[Tensor, "b m h c"],
    key: Float[Tensor, "b g k c"],
    value: Float[Tensor, "b g k c"],
    places: Int[Tensor, "b m"],
    mask: Tensor | None,
    tokens: int,
) -> Float[Tensor, "b m hc"]:
    """Return what gathered queries read, block by block of queries.

    ``places`` are the queries' places among the ``tokens`` of this forward.
    """
    query, seen = query.transpose(1, 2), key.shape[2]
    # The mask of the token at place p: what starts at T - p - 1 of T zeros and then minus infinity.
    ramp = query.new_zeros(2 * tokens)
    ramp[tokens:] = -torch.inf
    parts = []
    for start in range(0, query.shape[2], QUERY_BLOCK):
        block = places[:, start : start + QUERY_BLOCK]
        # A mask may look further than a token's own place, as one of a static cache does not.
        last, rows = seen, None
        if mask is not None:
            index = block[:, None, :, None].expand(-1, 1, -1, mask.shape[-1])
            rows = mask.expand(len(places), -1, -1, -1).gather(2, index)
        elif tokens > 1:
            # transformers leaves the mask out for one token, and where nothing comes before: then
            # keys after these tokens are places of a static cache that are not filled yet.
            last = int(block.max()) + 1
            starts = (tokens - 1 - block).flatten()
            rows = ramp.as_strided((tokens, last), (1, 1)).index_select(0, starts)
            rows = rows.view(len(block), 1, -1, last)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, :, start : start + QUERY_BLOCK],
                key[:, :, :last],
                value[:, :, :last],
                attn_mask=rows,
                scale=attention.scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2).flatten(2)
