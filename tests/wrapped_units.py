"""Tiny random models of GateSkip and Ouro, as their reference code has them.

Written from what the code does: names of modules, shapes, rules and polarities.
"""

from __future__ import annotations

from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaModel, LlamaRMSNorm

from tests import tiny

ROUNDS = 4


class _Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(states))


class GatedWrapper(nn.Module):
    """A gate around attention or an MLP; ``truth`` is what it masked, beside any hook."""

    current_validity_mask: Tensor | None = None
    current_token_importance: Tensor | None = None
    current_gate_value: Tensor | None = None

    def __init__(self, module: nn.Module, gate: nn.Module, config: Any, layer: int, name: str):
        super().__init__()
        self.module, self.gate, self.config = module, gate, config
        self.layer_idx, self.module_name = layer, name
        self.truth = torch.zeros(0)

    @property
    def threshold(self) -> float:
        assert self.current_token_importance is not None
        assert self.current_validity_mask is not None
        valid = self.current_token_importance[self.current_validity_mask].detach().flatten()
        if self.config.desired_skip_ratio <= 0.0:
            return float("-inf")
        if valid.numel() <= 1 or (valid == 1.0).all():
            return 0.0
        return float(torch.quantile(valid, self.config.desired_skip_ratio).item())

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        value = self.gate(hidden_states.detach())
        self.current_gate_value = value
        assert self.current_validity_mask is not None
        mean = value.mean(dim=-1)
        ones = torch.ones_like(mean)
        importance = torch.where(self.current_validity_mask, mean, ones)
        if not any(kind in self.module_name for kind in self.config.skip_module_types):
            importance = ones
        self.current_token_importance = importance
        skip = (importance <= self.threshold)[..., None]
        self.truth = ~skip[..., 0]
        made = self.module(hidden_states, *args, **kwargs)
        main = made[0] if isinstance(made, tuple) else made
        main = torch.where(skip, torch.zeros_like(hidden_states), value * main)
        return (main, *made[1:]) if isinstance(made, tuple) else main


def gateskip(*, ratio: float = 0.3, kinds: tuple[str, ...] = ("attn", "mlp")) -> Any:
    """A gate around every attention and every MLP."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    config = SimpleNamespace(
        desired_skip_ratio=ratio, randomly_skip=False, skip_module_types=kinds,
        physically_skip=False,
    )  # fmt: skip
    wrapped = []
    for number, layer in enumerate(model.model.layers):
        for part, name in (("self_attn", f"attn_{number}"), ("mlp", f"mlp_{number}")):
            gate = _Gate(model.config.hidden_size)
            nn.init.normal_(gate.linear.weight, std=0.5)
            wrapped.append(GatedWrapper(getattr(layer, part), gate, config, number, name))
            setattr(layer, part, wrapped[-1])
    own = type(model).forward

    def forward(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        # As the reference code's training module puts itself around the model's forward.
        for each in wrapped:
            each.current_validity_mask = input_ids != self.config.pad_token_id
        return own(self, input_ids=input_ids, **kwargs)

    model.forward = MethodType(forward, model)
    return model.eval()


def gateskip_truth(model: Any) -> Tensor:
    """Return what ran in the last forward, [tokens, sites], attention before MLP."""
    parts = [part for layer in model.model.layers for part in (layer.self_attn, layer.mlp)]
    return torch.stack([part.truth[0] for part in parts], dim=1)


class _OuroLayer(nn.Module):
    def __init__(self, layer: Any, config: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        for name in ("input_layernorm", "input_layernorm_2", "post_attention_layernorm",
                     "post_attention_layernorm_2"):  # fmt: skip
            setattr(self, name, LlamaRMSNorm(config.hidden_size))

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        made, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.input_layernorm_2(made)
        made = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.post_attention_layernorm_2(made)


class _OuroModel(LlamaModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(_OuroLayer(each, config) for each in self.layers)
        self.total_ut_steps = ROUNDS
        self.early_exit_gate = nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        states = self.embed_tokens(input_ids)
        rotary = self.rotary_emb(states, torch.arange(states.shape[1])[None])
        every, gates = [], []
        for _ in range(self.total_ut_steps):
            for layer in self.layers:
                states = layer(states, position_embeddings=rotary, attention_mask=None)
            states = self.norm(states)
            every.append(states)
            gates.append(self.early_exit_gate(states))
        return BaseModelOutputWithPast(last_hidden_state=states), every, gates


def ouro(*, threshold: float | None = 0.6, step: int | None = None) -> Any:
    """Three layers that run in four rounds."""
    model: Any = tiny.backbone(seed=0, layers=3)
    torch.manual_seed(1)
    model.model = _OuroModel(model.config)
    nn.init.normal_(model.model.early_exit_gate.weight, std=0.5)
    model.early_exit_step, model.early_exit_threshold = step, threshold

    def forward(
        self: Any, input_ids: Any = None, exit_at_step: Any = None, exit_threshold: Any = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        step = self.early_exit_step if exit_at_step is None else exit_at_step
        limit = self.early_exit_threshold if exit_threshold is None else exit_threshold
        _, every, gates = self.model(input_ids)
        left, chances = torch.ones_like(gates[0][..., 0]), []
        for number, gate in enumerate(gates):
            stop = torch.sigmoid(gate.squeeze(-1))
            chances.append(stop * left if number < len(gates) - 1 else left)
            left = left * (1.0 - stop)
        added = torch.cumsum(torch.stack(chances, dim=2), dim=2)
        if step is not None and 0 <= step < len(every):
            self.truth = torch.full(added.shape[:2], step)
        elif limit is not None:
            self.truth = torch.full(added.shape[:2], len(every) - 1)
            for row in range(added.shape[0]):
                for token in range(added.shape[1]):
                    for round_ in range(len(every)):
                        if added[row, token, round_] >= limit:
                            self.truth[row, token] = round_
                            break
        else:
            self.truth = torch.full(added.shape[:2], len(every) - 1)
        stacked = torch.stack(every, dim=2)
        index = self.truth[..., None, None].expand(-1, -1, 1, stacked.shape[-1])
        states = stacked.gather(2, index).squeeze(2)
        return CausalLMOutputWithPast(logits=self.lm_head(states))

    model.forward = MethodType(forward, model)
    return model.eval()
