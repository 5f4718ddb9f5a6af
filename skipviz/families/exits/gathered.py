"""Runs layers for tokens that have not left; of those that have, keys and values alone.

Later tokens attend to a token that left by the keys and values that each layer above makes of the
hidden state it left with, so these are made as in the masked runtime, and both give the same
numbers. Where no token is inside any more, as mostly in decoding, a layer makes nothing else;
without a cache not even these, since no token reads them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipviz.families.exits.modules import EarlyExits
from skipviz.families.gated.gathered import CROSSOVER, attention_of, rows_through
from skipviz.families.llama import decoder_layers, weights_asked


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
    if len(rows) > CROSSOVER * inside.numel() or weights_asked(layer.self_attn, given):
        made = whole(hidden_states, **given)
        return torch.where(inside.unsqueeze(-1), made, hidden_states)
    read = attention_of(
        layer.self_attn, layer.input_layernorm(hidden_states), inside, rows, **given
    )
    if read is None:
        return hidden_states
    flat = hidden_states.flatten(0, 1)
    some = flat.index_select(0, rows) + read
    some = some + rows_through(layer.mlp, layer.post_attention_layernorm(some))
    return flat.index_copy(0, rows, some).view_as(hidden_states)
