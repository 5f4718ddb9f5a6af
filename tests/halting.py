"""Tiny random language models whose one layer runs in steps, as ACT and PonderNet have it.

Written from what their reference code does: names of modules, shapes, rules and polarities.
``truth`` is at how many steps each token stopped, noted apart from any hook.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaModel

from tests import tiny

STEPS = 6


class ACTBasic(nn.Module):
    """``ACT_basic`` of Universal-Transformer-Pytorch."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.sigma = nn.Sigmoid()
        self.p = nn.Linear(hidden_size, 1)
        self.p.bias.data.fill_(1)
        self.threshold = 1 - 0.1

    def forward(self, state: Tensor, fn: Any, time_enc: Tensor, max_hop: int) -> Any:
        shape = state.shape[:2]
        halting_probability = torch.zeros(*shape)
        remainders, n_updates = torch.zeros(*shape), torch.zeros(*shape)
        previous_state, step = torch.zeros_like(state), 0
        while ((halting_probability < self.threshold) & (n_updates < max_hop)).byte().any():
            state = state + time_enc[step]
            p = self.sigma(self.p(state)).squeeze(-1)
            still_running = (halting_probability < 1.0).float()
            new_halted = (
                halting_probability + p * still_running > self.threshold
            ).float() * still_running
            still_running = (
                halting_probability + p * still_running <= self.threshold
            ).float() * still_running
            halting_probability = halting_probability + p * still_running
            remainders = remainders + new_halted * (1 - halting_probability)
            halting_probability = halting_probability + new_halted * remainders
            n_updates = n_updates + still_running + new_halted
            weights = (p * still_running + new_halted * remainders)[..., None]
            state = fn(state)
            previous_state = state * weights + previous_state * (1 - weights)
            step += 1
        return previous_state, (remainders, n_updates)


class _ACTModel(LlamaModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.enc, self.num_layers = self.layers[0], STEPS
        del self.layers
        self.act_fn = ACTBasic(config.hidden_size)
        nn.init.normal_(self.act_fn.p.weight, std=0.6)
        self.register_buffer("time", torch.randn(STEPS, config.hidden_size) * 0.1)
        self.truth = torch.zeros(0)

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        states = self.embed_tokens(input_ids)
        rotary = self.rotary_emb(states, torch.arange(states.shape[1])[None])

        def fn(states: Tensor) -> Tensor:
            return self.enc(states, position_embeddings=rotary, attention_mask=None)

        states, (_, self.truth) = self.act_fn(states, fn, self.time, self.num_layers)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(states))


def act(*, threshold: float | None = None, bias: float = -1.0) -> Any:
    """A layer that runs in up to six steps."""
    model: Any = tiny.backbone(seed=0, layers=1)
    torch.manual_seed(1)
    model.model = _ACTModel(model.config)
    model.model.act_fn.p.bias.data.fill_(bias)
    if threshold is not None:
        model.model.act_fn.threshold = threshold
    return model.eval()


class PonderSteps(nn.Module):
    """``ParityPonderGRU`` of labml, with a decoder layer in the place of its GRU."""

    def __init__(self, layer: nn.Module, head: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.output_layer, self.max_steps = layer, head, STEPS
        self.lambda_layer, self.lambda_prob = nn.Linear(width, 1), nn.Sigmoid()
        self.is_halt = True
        self.truth = torch.zeros(0)

    def forward(self, x: Tensor, **given: Any) -> Any:
        h, p, y = self.layer(x, **given), [], []
        un_halted_prob, halted = torch.ones(x.shape[:2]), torch.zeros(x.shape[:2])
        y_m: Any = 0.0
        self.truth = torch.zeros(x.shape[:2])
        for n in range(1, self.max_steps + 1):
            if n == self.max_steps:
                lambda_n = torch.ones(x.shape[:2])
            else:
                lambda_n = self.lambda_prob(self.lambda_layer(h))[..., 0]
            y_n = self.output_layer(h)
            p.append(un_halted_prob * lambda_n)
            y.append(y_n)
            un_halted_prob = un_halted_prob * (1 - lambda_n)
            halt = torch.bernoulli(lambda_n) * (1 - halted)
            self.truth = self.truth + n * halt
            y_m = y_m * (1 - halt[..., None]) + y_n * halt[..., None]
            halted = halted + halt
            h = self.layer(h, **given)
            if self.is_halt and halted.sum() == halted.numel():
                break
        return torch.stack(p), torch.stack(y), y_m


class _PonderModel(LlamaModel):
    def __init__(self, config: Any, head: nn.Module) -> None:
        super().__init__(config)
        layer = self.layers[0]
        del self.layers
        self.ponder = PonderSteps(layer, nn.Sequential(self.norm, head), config.hidden_size)
        nn.init.normal_(self.ponder.lambda_layer.weight, std=0.5)

    @property
    def truth(self) -> Tensor:
        return self.ponder.truth


def pondernet() -> Any:
    """A layer that runs in up to six steps, which end by a draw."""
    model: Any = tiny.backbone(seed=0, layers=1)
    torch.manual_seed(1)
    model.model = _PonderModel(model.config, model.lm_head)

    def forward(self: Any, input_ids: Any = None, **kwargs: Any) -> Any:
        states = self.model.embed_tokens(input_ids)
        rotary = self.model.rotary_emb(states, torch.arange(states.shape[1])[None])
        _, _, made = self.model.ponder(states, position_embeddings=rotary, attention_mask=None)
        return CausalLMOutputWithPast(logits=made)

    model.forward = MethodType(forward, model)
    return model.eval()
