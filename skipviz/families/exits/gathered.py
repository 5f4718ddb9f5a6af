"""Runs layers for tokens that have not left; of those that have, keys and values alone.

Later tokens attend to a token that left by the keys and values that each layer above makes of the
hidden state it left with, so these are made as in the masked runtime, and both give the same
numbers. Where nobody is inside any more, as mostly in decoding, a layer makes nothing else; without
a cache not even these, since nobody reads them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from skipviz.families.exits.modules import EarlyExits
from skipviz.families.gated.gathered import CROSSOVER, attend_gathered
from skipviz.families.llama import cache_given, decoder_layers, rotated


def gather_layers(model: nn.Module, exits: EarlyExits, *, gathered: bool) -> None:
    """Have the layers above the first exit run for tokens inside alone, or for all.

    Parameters
    ----------
    model
        A model with exits.
    exits
        Its exits.
    gathered
        Whether for tokens inside alone.
    """
    exits.gathered = gathered
    for layer in decoder_layers(model)[exits.config.exits[0] + 1 :]:
        layer.__dict__.pop("forward", None)
        if gathered:
            # A partial, not a closure: a copy of the model asks its own exits.
            layer.forward = functools.partial(_run_inside, exits, layer)


def _run_inside(
    exits: EarlyExits, layer: Any, hidden_states: Float[Tensor, "b t d"], **given: Any
) -> Float[Tensor, "b t d"]:
    """Return a layer's output for tokens inside; the others keep their states."""
    found = exits.inside()
    whole = functools.partial(type(layer).forward, layer)
    if found is None:
        made: Tensor = whole(hidden_states, **given)
        return made
    inside, rows = found
    if len(rows) > CROSSOVER * inside.numel():
        made = whole(hidden_states, **given)
        return torch.where(inside.unsqueeze(-1), made, hidden_states)
    if not len(rows) and cache_given(given) is None:
        return hidden_states
    return _layer(layer, hidden_states, inside, rows, **given)


def _layer(
    layer: Any,
    states: Float[Tensor, "b t d"],
    inside: Bool[Tensor, "b t"],
    rows: Int[Tensor, " n"],
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **more: Any,
) -> Float[Tensor, "b t d"]:
    attention, cache = layer.self_attn, cache_given(more)
    normed = layer.input_layernorm(states)
    shape = (*states.shape[:2], -1, attention.head_dim)
    key = rotated(attention, attention.k_proj(normed).view(shape), position_embeddings, "k_norm")
    key, value = key.transpose(1, 2), attention.v_proj(normed).view(shape).transpose(1, 2)
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    if not len(rows):
        return states
    rotary = tuple(
        each.expand(*states.shape[:2], -1).flatten(0, 1).index_select(0, rows)
        for each in position_embeddings
    )
    query = attention.q_proj(normed.flatten(0, 1).index_select(0, rows))
    query = rotated(
        attention, query.view(len(rows), -1, attention.head_dim), (rotary[0], rotary[1]), "q_norm"
    )
    read = _attended(attention, query, key, value, attention_mask, inside)
    flat = states.flatten(0, 1)
    some = flat.index_select(0, rows) + attention.o_proj(read)
    some = some + layer.mlp(layer.post_attention_layernorm(some))
    return flat.index_copy(0, rows, some).view_as(states)


def _attended(
    attention: Any,
    query: Float[Tensor, "n h c"],
    key: Float[Tensor, "b g k c"],
    value: Float[Tensor, "b g k c"],
    mask: Tensor | None,
    inside: Bool[Tensor, "b t"],
) -> Float[Tensor, "n hc"]:
    """Return what the queries of tokens inside read, texts without any left out."""
    some = inside.any(dim=1).nonzero().squeeze(1)
    if len(some) < len(inside):
        inside, key, value = (each.index_select(0, some) for each in (inside, key, value))
        mask = mask.index_select(0, some) if mask is not None and len(mask) > 1 else mask
    counts = inside.sum(dim=1)
    # Of each text the tokens inside in order, filled up to the most that a text has.
    most = int(counts.max())
    picked = inside.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    wanted = torch.arange(most, device=query.device) < counts[:, None]
    filled = query.new_zeros(*wanted.shape, *query.shape[1:])
    filled[wanted] = query
    read = attend_gathered(
        attention, filled.transpose(1, 2), key, value, picked, mask, tokens=inside.shape[1]
    )
    return read.transpose(1, 2)[wanted].flatten(1)
