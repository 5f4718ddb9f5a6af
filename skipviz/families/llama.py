"""The one place that knows how a Llama-layout model is laid out, and what its parts cost.

FLOPs are the unit in which budgets are stated. A multiply and an add count as two. Norms, residual
additions, rotary embeddings and activation functions are left out: together they are under one per
cent of a layer. Keys and values are computed for every token whatever the gates decide, so they are
on neither side of a budget.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from skipviz.errors import InputError


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder layers of a Llama-layout causal LM.

    Raises
    ------
    ValueError
        If the model has no ``model.layers`` whose items have ``self_attn`` and ``mlp``.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    if isinstance(layers, nn.ModuleList) and all(
        hasattr(layer, "self_attn") and hasattr(layer, "mlp") for layer in layers
    ):
        return layers
    raise InputError(
        f"{type(model).__name__} is not laid out as Llama is (model.layers[i].self_attn and "
        ".mlp): gates can be put into Llama, Mistral, Qwen2, Qwen3 and SmolLM models."
    )


def states_given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the hidden states that a layer, or a part of one, is called with."""
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def cache_given(kwargs: Mapping[str, Any]) -> Any:
    """Return the cache of keys and values that a model or a part of one is called with, or None.

    It was called ``past_key_values`` before transformers 5.24, and may still be.
    """
    cache = kwargs.get("cache")
    return kwargs.get("past_key_values") if cache is None else cache


def tokens_held(kwargs: Mapping[str, Any]) -> int:
    """Return how many tokens the cache holds that it is called with; 0 without one."""
    cache = cache_given(kwargs)
    return 0 if cache is None else int(cache.get_seq_length())


def places_given(
    kwargs: Mapping[str, Any], states: Float[Tensor, "b t d"], *, held: int
) -> Int[Tensor, "b t"]:
    """Return where in its text each token of a layer stands; behind those held, if it is not told.

    Parameters
    ----------
    kwargs, states
        What the layer is called with.
    held
        How many tokens came before, in the cache.
    """
    places: Tensor | None = kwargs.get("position_ids")
    if places is None:
        places = torch.arange(held, held + states.shape[1], device=states.device)[None]
    return places.expand(states.shape[:2])


def stay_on_layers(model: Any, part: Any, layers: Mapping[int, Any]) -> None:
    """Have a part of a model called before its decoder and after some layers, from now on.

    Parameters
    ----------
    model
        A Llama-layout causal LM.
    part
        ``start`` is a forward pre-hook of the decoder, and ``after_layer`` a forward hook of layers
        behind an argument of each layer's own; both are given keyword arguments.
    layers
        That argument, for each layer after which it is called.
    """
    model.model.register_forward_pre_hook(part.start, with_kwargs=True)
    for number, own in layers.items():
        # A partial of a method, not a closure: a copy of the model is hooked to its own part.
        hook = functools.partial(part.after_layer, own)
        model.model.layers[number].register_forward_hook(hook, with_kwargs=True)


def kept_in(
    cache: Any, attention: Any, key: Tensor, value: Tensor, given: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Keep keys and values, heads before tokens, in a cache; return all that it holds of the layer.

    ``given`` is what the attention is called with: earlier versions of transformers say there, and
    not in the cache, where a static cache is to be written.
    """
    where = {"cache_position": given["cache_position"]} if "cache_position" in given else None
    held: tuple[Tensor, Tensor] = cache.update(key, value, attention.layer_idx, where)
    return held


def weights_asked(attention: Any, given: Mapping[str, Any]) -> bool:
    """Return whether transformers wants an attention's weights, for which it listens to each.

    ``given`` is what the attention is called with.
    """
    own = getattr(getattr(attention, "config", None), "output_attentions", False)
    return bool(given.get("output_attentions", own))


def states_made(result: Any) -> Tensor:
    """Return the hidden states among what it returns: attention returns its weights beside them."""
    states: Tensor = result if isinstance(result, Tensor) else result[0]
    return states


def with_states(result: Any, states: Tensor) -> Any:
    """Return what it returns with other hidden states."""
    return states if isinstance(result, Tensor) else (states, *result[1:])


def projected(
    attention: Any, states: Float[Tensor, "*b d"], rotary: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, "*b h c"], Float[Tensor, "*b g c"], Float[Tensor, "*b g c"]]:
    """Return queries, keys and values as an attention makes them, a row per token.

    Parameters
    ----------
    attention
        The attention module of a layer.
    states
        Normalised hidden states.
    rotary
        Cosines and sines of the tokens' positions.
    """
    # Imported here: ``import skipviz`` need not wait for it.
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    shape = (*states.shape[:-1], -1, attention.head_dim)
    query, key = attention.q_proj(states).view(shape), attention.k_proj(states).view(shape)
    if getattr(attention, "q_norm", None) is not None:
        query, key = attention.q_norm(query), attention.k_norm(key)
    # Heads are the last dimension but one, whatever stands before.
    query, key = apply_rotary_pos_emb(query, key, *rotary, unsqueeze_dim=-2)
    return query, key, attention.v_proj(states).view(shape)


def rotated(
    attention: Any,
    heads: Float[Tensor, "*b h c"],
    rotary: tuple[Float[Tensor, "*r c"], Float[Tensor, "*r c"]],
    norm: str,
) -> Float[Tensor, "*b h c"]:
    """Return queries or keys with their places in them, as an attention makes them.

    Parameters
    ----------
    attention
        The attention module of a layer.
    heads
        What a projection made, a row per token.
    rotary
        Cosines and sines of the tokens' positions, which texts may share.
    norm
        ``q_norm`` or ``k_norm``, which some models have.
    """
    if getattr(attention, norm, None) is not None:
        heads = getattr(attention, norm)(heads)
    cosine, sine = (each.unsqueeze(-2) for each in rotary)
    half = heads.shape[-1] // 2
    first, second = heads.split([half, half], dim=-1)
    turned = heads * cosine
    turned[..., :half].addcmul_(second, sine[..., :half], value=-1)
    turned[..., half:].addcmul_(first, sine[..., half:])
    return turned


def attention_scores(
    query: Float[Tensor, "n h c"], key: Float[Tensor, "k g c"], scaling: float
) -> Float[Tensor, "n h k"]:
    """Return the scores of some tokens over others, in float32, before anything is masked."""
    grouped = query.unflatten(1, (key.shape[1], -1))
    return torch.einsum("ngqc,kgc->ngqk", grouped, key).flatten(1, 2).float() * scaling


def attention_mix(
    weights: Float[Tensor, "n h k"], value: Float[Tensor, "k g c"]
) -> Float[Tensor, "n hc"]:
    """Return the values that tokens read with these weights, in float32; ``o_proj`` comes next."""
    grouped = weights.unflatten(1, (value.shape[1], -1))
    return torch.einsum("ngqk,kgc->ngqc", grouped, value.float()).flatten(1)


def attend_after(
    attention: Any,
    states: Float[Tensor, "r k d"],
    *,
    rotary: tuple[Float[Tensor, "r k c"], Float[Tensor, "r k c"]],
    text: tuple[Float[Tensor, "h t c"], Float[Tensor, "h t c"]],
    first: Int[Tensor, " r"],
    wanted: Bool[Tensor, "r k"],
) -> Float[Tensor, "n d"]:
    """Return an attention's output for rows of tokens that each follow part of one text.

    A row's tokens see the text before its first token, and each other.

    Parameters
    ----------
    attention
        The attention module of a layer.
    states
        Normalised hidden states of the rows.
    rotary
        Cosines and sines of their positions.
    text
        Keys and values of the text.
    first
        Where in the text each row begins.
    wanted
        Of which tokens the output is wanted, of some of every row; the others are only seen.
    """
    keys, values = text
    query, own_key, own_value = projected(attention, states, rotary)
    heads, length, _ = keys.shape
    count, reach = states.shape[:2]
    # [rows, tokens, key heads, queries a head, width]
    query = query.view(count, reach, heads, -1, query.shape[-1]) * attention.scaling
    past = torch.einsum("rkhgc,htc->hrkgt", query, keys)
    earlier = torch.arange(length, device=first.device) < first[:, None]
    past.masked_fill_(~earlier[None, :, None, None, :], -torch.inf)
    now = torch.einsum("rkhgc,rjhc->hrkgj", query, own_key)
    causal = torch.ones(reach, reach, dtype=torch.bool, device=first.device).tril()
    now = now.masked_fill(~causal[None, None, :, None, :], -torch.inf)
    weights = torch.cat([past, now], dim=-1).softmax(-1)
    seen = torch.einsum("hrkgt,htc->rkhgc", weights[..., :length], values)
    seen = seen + torch.einsum("hrkgj,rjhc->rkhgc", weights[..., length:], own_value)
    output: Tensor = attention.o_proj(seen.flatten(2)[wanted])
    return output


Amount = int | float | Tensor
"""One number, or one for each token."""


@dataclass(frozen=True, kw_only=True)
class UnitFlops:
    """FLOPs of one token in one layer of a Llama-layout model.

    Attributes
    ----------
    attn_fixed
        Query and output projections.
    attn_per_key
        Scores and weighted values, for each token that attention can see.
    mlp
        Gate, up and down projections.
    kv
        Key and value projections; never part of a budget.
    head
        Output head, once per token.
    """

    attn_fixed: int
    attn_per_key: int
    mlp: int
    kv: int
    head: int

    @classmethod
    def of(cls, model: Any) -> UnitFlops | None:
        """Return the FLOPs of a model's units, or None if its layers are of another kind."""
        layers = getattr(getattr(model, "model", None), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            return None
        flops = cls.from_config(model.config)
        return flops if all(_multiplies(layer, flops) for layer in layers) else None

    @classmethod
    def from_config(cls, config: Any) -> UnitFlops:
        """Read the sizes off a transformers configuration."""
        width = config.hidden_size
        head_dim = getattr(config, "head_dim", None) or width // config.num_attention_heads
        inner = config.num_attention_heads * head_dim
        return cls(
            attn_fixed=4 * width * inner,
            attn_per_key=4 * inner,
            mlp=6 * width * config.intermediate_size,
            kv=4 * width * config.num_key_value_heads * head_dim,
            head=2 * width * config.vocab_size,
        )

    def layer(self, seen: Amount) -> Amount:
        """Return what attention and MLP of a layer cost a token that sees so many, itself too."""
        return self.attn_fixed + self.attn_per_key * seen + self.mlp

    def saved(self, unit: str, seen: Amount, *, skip: int) -> Amount:
        """Return what skipping a unit saves such a token, if its skip path costs ``skip``."""
        if unit == "attn":
            return self.attn_fixed + self.attn_per_key * seen - skip
        return self.mlp - skip


def _multiplies(layer: nn.Module, flops: UnitFlops) -> bool:
    """Return whether a layer multiplies by just the weights that its FLOPs are counted for."""
    weights: dict[str, list[int]] = {}
    for name, module in layer.named_modules():
        if name.rpartition(".")[2] == "experts":
            return False
        if isinstance(module, nn.Linear):
            weights.setdefault(name.rpartition(".")[2], []).append(module.weight.numel())

    def of(*names: str) -> int | None:
        found = [weights.get(name, []) for name in names]
        return 2 * sum(map(sum, found)) if all(len(each) == 1 for each in found) else None

    return (of("q_proj", "o_proj"), of("k_proj", "v_proj")) == (flops.attn_fixed, flops.kv) and of(
        "gate_proj", "up_proj", "down_proj"
    ) == flops.mlp


def gate_flops(width: int, hidden: int) -> int:
    """Return the FLOPs of one gate for one token."""
    return 2 * width * hidden + 2 * hidden


def adapter_flops(width: int, rank: int) -> int:
    """Return the FLOPs of one adapter for one token."""
    return 4 * width * rank
