"""Keys and values of a cache with room behind them: a token's are written, and no others copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from skipviz.families.llama import kept_in

ROOM = 64
"""Tokens that there is room for before all is copied again."""


@dataclass(eq=False)
class _Held:
    """What a layer of a cache holds, and the same with room behind it."""

    seen: tuple[Tensor, Tensor]
    whole: tuple[Tensor, Tensor]


class HeldKeys:
    """Keeps the keys and values of single tokens for one attention.

    transformers' dynamic cache copies all that it holds of a layer for every token. What others
    have of the cache never changes: only places that no tensor of theirs reaches are written to,
    and only by the layer of a cache that made the room.
    """

    def __init__(self) -> None:
        self._held: WeakKeyDictionary[DynamicLayer, _Held] = WeakKeyDictionary()

    def keep(
        self,
        cache: Any,
        attention: Any,
        key: Float[Tensor, "1 g 1 c"],
        value: Float[Tensor, "1 g 1 c"],
        given: Mapping[str, Any],
    ) -> tuple[Float[Tensor, "1 g k c"], Float[Tensor, "1 g k c"]]:
        """Keep a token's key and value; return all that the cache holds of the layer.

        Parameters
        ----------
        cache, attention, key, value, given
            As of ``kept_in``.
        """
        layer: Any = _growing(cache, attention.layer_idx)
        if layer is None:
            return kept_in(cache, attention, key, value, given)
        held = self._held.get(layer)
        seen = layer.keys, layer.values
        tokens = seen[0].shape[2]
        known = held is not None and seen[0] is held.seen[0] and seen[1] is held.seen[1]
        if held is None or not known or tokens == held.whole[0].shape[2]:
            held = self._held[layer] = _Held(seen, (_with_room(seen[0]), _with_room(seen[1])))
        keys, values = held.whole
        keys.narrow(2, tokens, 1).copy_(key)
        values.narrow(2, tokens, 1).copy_(value)
        held.seen = keys.narrow(2, 0, tokens + 1), values.narrow(2, 0, tokens + 1)
        layer.keys, layer.values = held.seen
        return held.seen


def _growing(cache: Any, number: int) -> Any:
    """Return the layer of a cache that grows as it is, or None where it does otherwise."""
    if torch.is_grad_enabled() or getattr(cache, "offloading", False):
        return None
    # A cache of a user's own may keep something else, or listen.
    if getattr(type(cache), "update", None) is not DynamicCache.update or "update" in vars(cache):
        return None
    layers = getattr(cache, "layers", ())
    layer: Any = layers[number] if number < len(layers) else None
    if type(layer) is not DynamicLayer or not layer.get_seq_length():
        return None
    keys: Any = layer.keys
    # What was made in inference mode cannot be written to outside of it.
    made_here = keys.is_inference() == torch.is_inference_mode_enabled()
    return layer if made_here else None


def _with_room(held: Float[Tensor, "1 g k c"]) -> Float[Tensor, "1 g k2 c"]:
    """Return a copy with room for more tokens."""
    _, heads, tokens, width = held.shape
    whole = held.new_empty(1, heads, tokens + ROOM, width)
    whole.narrow(2, 0, tokens).copy_(held)
    return whole
