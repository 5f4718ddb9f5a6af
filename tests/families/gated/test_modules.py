from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from skipviz.families import Dense, Gated, family_of
from skipviz.families.gated.modules import (
    Gate,
    LowRankAdapter,
    gate_parameters,
    gated_units,
    install_gates,
    set_threshold,
    straight_through,
)
from skipviz.families.llama import decoder_layers
from tests import tiny

STATE = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(3, 260, (1, 9), generator=torch.Generator().manual_seed(0))


def test_fresh_gates_leave_the_backbone_as_it_was() -> None:
    dense, gated = tiny.backbone(seed=0), tiny.backbone(seed=0)
    install_gates(gated, tiny.GATES)
    assert not any(module.training for module in gated.modules())
    assert torch.equal(dense(IDS).logits, gated(IDS).logits)
    assert {layer for layer, _, _ in gated_units(gated)} == {1, 2, 3, 4}
    assert [unit for _, unit, _ in gated_units(gated)][:3] == ["attn", "mlp", "attn"]


def test_only_gates_and_adapters_learn() -> None:
    model = tiny.gated(seed=0)
    learns = {id(value) for value in model.parameters() if value.requires_grad}
    assert learns == {id(value) for value in gate_parameters(model).values()}
    assert set(gate_parameters(model)) >= {"1.attn.gate.up.bias", "4.mlp.adapter.down.weight"}
    assert len(gate_parameters(model)) == 8 * 7


def test_a_threshold_nothing_passes_leaves_the_adapters_alone() -> None:
    model = tiny.gated(seed=0)
    set_threshold(model, float("inf"))
    for _, _, unit in gated_units(model):
        nn.init.zeros_(unit.adapter.up.weight)
        nn.init.zeros_(unit.adapter.up.bias)
    bare = tiny.backbone(seed=0)
    bare.model.layers = nn.ModuleList([bare.model.layers[0], bare.model.layers[5]])
    assert torch.allclose(model(IDS).logits, bare(IDS, use_cache=False).logits, atol=1e-5)


def test_a_skipped_token_keeps_its_keys_and_values() -> None:
    """Every token skips layer 1's attention; later layers' caches hold all tokens."""
    model = tiny.gated(seed=0)
    set_threshold(model, float("inf"))
    cache = model(IDS, use_cache=True).past_key_values
    assert [cache.get_seq_length(layer) for layer in range(tiny.LAYERS)] == [9] * tiny.LAYERS


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_an_attention_runs_for_its_keys_whatever_the_cache_is_called(name: str) -> None:
    class Attention(nn.Module):
        def forward(self, states: torch.Tensor, **kwargs: object) -> tuple[torch.Tensor, None]:
            given.append(kwargs)
            return states, None

    given: list[dict[str, object]] = []
    unit = next(unit for _, kind, unit in gated_units(tiny.gated(seed=0)) if kind == "attn")
    unit.decide.threshold.fill_(float("inf"))
    unit.unit = Attention()
    unit(STATE)
    assert not given
    held = object()
    unit(STATE, **{name: held})
    assert given == [{name: held}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gate_scores_in_single_precision(dtype: torch.dtype) -> None:
    gate = Gate(32, 4)
    score = gate(STATE.to(dtype))
    assert score.shape == (2, 5)
    assert score.dtype == torch.float32
    by_hand = torch.nn.functional.gelu(
        STATE.to(dtype).float() @ gate.down.weight.T + gate.down.bias
    )
    assert torch.allclose(score, (by_hand @ gate.up.weight.T + gate.up.bias)[..., 0], atol=1e-6)


def test_an_adapter_is_an_affine_map_of_its_rank() -> None:
    adapter = LowRankAdapter(32, 3)
    rest = adapter(STATE) - adapter.up.bias
    assert torch.linalg.matrix_rank(rest.flatten(0, 1)).item() == 3
    assert adapter(STATE.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("first", [-1, 5])
def test_layers_that_are_no_range_are_refused(first: int) -> None:
    with pytest.raises(ValueError, match=f"Gated layers {first} to 4 are not a range"):
        dataclasses.replace(tiny.GATES, first_layer=first)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="adapter_rank=0"):
        dataclasses.replace(tiny.GATES, adapter_rank=0)


def test_a_layer_that_is_not_there_cannot_be_gated() -> None:
    with pytest.raises(ValueError, match="Layer 6 cannot be gated: the model has 6 layers"):
        install_gates(tiny.backbone(seed=0), dataclasses.replace(tiny.GATES, last_layer=6))


def test_another_layout_is_refused_by_name() -> None:
    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20))
    with pytest.raises(ValueError, match="GPT2LMHeadModel is not laid out as Llama is"):
        decoder_layers(other)


def test_a_family_knows_its_models() -> None:
    assert isinstance(family_of(tiny.gated(seed=0)), Gated)
    assert isinstance(family_of(tiny.backbone(seed=0)), Dense)


def test_straight_through_is_hard_forward_and_sigmoid_backward() -> None:
    margin = torch.linspace(-3, 3, 13).reshape(1, 13).requires_grad_()
    execute = margin > 0
    hard = straight_through(margin, execute)
    assert torch.allclose(hard, execute.float(), atol=1e-6)
    weights = torch.arange(13.0).reshape(1, 13)
    (hard * weights).sum().backward()
    soft = torch.sigmoid(margin.detach())
    assert margin.grad is not None
    assert torch.allclose(margin.grad, weights * soft * (1 - soft), atol=1e-6)
