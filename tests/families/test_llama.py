"""FLOPs of units by hand, and of which models they are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import skipviz
from skipviz.families.llama import (
    UnitFlops,
    attention_mix,
    attention_scores,
    cache_given,
    decoder_layers,
    projected,
    rotated,
    states_given,
    states_made,
)
from tests import tiny

WIDTH, INNER, KEYS, MLP = 32, 32, 16, 64
WANTED = UnitFlops(
    attn_fixed=2 * 2 * WIDTH * INNER,
    attn_per_key=2 * 2 * INNER,
    mlp=2 * 3 * WIDTH * MLP,
    kv=2 * 2 * WIDTH * KEYS,
    head=2 * WIDTH * len(tiny.tokenizer()),
)


def test_flops_are_twice_the_weights() -> None:
    assert UnitFlops.of(tiny.backbone(seed=0)) == WANTED
    assert UnitFlops.of(tiny.of_kind("Qwen3")) == WANTED
    assert WANTED.layer(5) == WANTED.attn_fixed + 5 * WANTED.attn_per_key + WANTED.mlp
    assert WANTED.saved("attn", 5, skip=7) == WANTED.attn_fixed + 5 * WANTED.attn_per_key - 7
    assert WANTED.saved("mlp", 5, skip=7) == WANTED.mlp - 7


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "up_proj", "gate_proj"])
def test_layers_that_multiply_by_other_weights_have_unknown_flops(part: str) -> None:
    model: Any = tiny.backbone(seed=0)
    layer = model.model.layers[3]
    setattr(layer.self_attn if part[0] in "qk" else layer.mlp, part, nn.Linear(WIDTH, 8))
    assert UnitFlops.of(model) is None


def test_layers_that_multiply_twice_or_not_at_all_have_unknown_flops() -> None:
    model: Any = tiny.backbone(seed=0)
    model.model.layers[0].beside = nn.ModuleDict({"up_proj": nn.Linear(WIDTH, MLP)})
    assert UnitFlops.of(model) is None
    model = tiny.backbone(seed=0)
    model.model.layers[5].mlp.down_proj = nn.Identity()
    assert UnitFlops.of(model) is None
    model = tiny.backbone(seed=0)
    model.model.layers[2].experts = nn.ModuleList()
    assert UnitFlops.of(model) is None
    assert UnitFlops.of(nn.Linear(2, 2)) is None


def test_a_head_as_wide_as_the_configuration_says() -> None:
    config = tiny.backbone(seed=0).config
    config.head_dim = None
    assert UnitFlops.from_config(config) == WANTED
    config.head_dim = 16
    found = UnitFlops.from_config(config)
    assert (found.attn_fixed, found.kv) == (2 * WANTED.attn_fixed, 2 * WANTED.kv)
    assert found.attn_per_key == 2 * WANTED.attn_per_key


def test_a_layout_that_is_not_llamas_is_said() -> None:
    assert len(decoder_layers(tiny.backbone(seed=0))) == tiny.LAYERS
    model: Any = tiny.backbone(seed=0)
    del model.model.layers[1].mlp
    for other in (model, nn.Linear(2, 2)):
        with pytest.raises(skipviz.InputError, match="not laid out as Llama is"):
            decoder_layers(other)


def test_states_and_caches_are_found_where_they_are_given() -> None:
    first, second = torch.zeros(1), torch.ones(1)
    assert states_given((first, second), {"hidden_states": second}) is first
    assert states_given((), {"hidden_states": second}) is second
    assert states_made((first, second)) is first
    assert states_made(second) is second
    assert cache_given({"cache": "new", "past_key_values": "old"}) == "new"
    assert cache_given({"past_key_values": "old"}) == "old"
    assert cache_given({}) is None


@pytest.mark.parametrize("kind", ["Llama", "Qwen3"])
def test_parts_of_an_attention_give_what_it_gives(kind: str) -> None:
    model: Any = tiny.of_kind(kind)
    attention = model.model.layers[1].self_attn
    if kind == "Qwen3":
        nn.init.uniform_(attention.q_norm.weight)
        nn.init.uniform_(attention.k_norm.weight)
    states = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(0))
    rotary = model.model.rotary_emb(states, torch.arange(3, 10)[None])
    above = torch.full((7, 7), -torch.inf).triu(1)
    wanted = attention(states, position_embeddings=rotary, attention_mask=above[None, None])[0]
    flat = (rotary[0][0], rotary[1][0])
    query, key, value = projected(attention, states[0], flat)
    weights = (attention_scores(query, key, attention.scaling) + above[:, None]).softmax(-1)
    assert torch.allclose(attention.o_proj(attention_mix(weights, value)), wanted[0], atol=1e-5)
    shape = (7, -1, attention.head_dim)
    turned = rotated(attention, attention.q_proj(states[0]).view(shape), flat, "q_norm")
    assert torch.allclose(turned, query, atol=1e-5)
