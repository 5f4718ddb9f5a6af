"""Tiny random models laid out as the reference code of published methods is.

Written from what their code does: names of modules, shapes, rules and polarities. Each layer keeps
in ``truth`` which tokens ran, beside and apart from anything that skipviz hooks.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tests import tiny


class _FlexiRouter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.enc, self.norm = nn.Linear(width, width // 4), nn.LayerNorm(width // 4)
        self.dec, self.head = nn.Linear(width // 4, width), nn.Linear(width, 1)

    def forward(self, states: Tensor) -> Tensor:
        logit: Tensor = self.head(self.dec(torch.tanh(self.norm(self.enc(states)))))
        return logit


class _FlexiLayer(LlamaDecoderLayer):
    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config, number)
        self.router = _FlexiRouter(config.hidden_size)
        self.router_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.truth: Tensor | None = None

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        weight = torch.sigmoid(self.router(self.input_layernorm(hidden_states)))
        runs = weight > 0.5
        self.truth = runs[..., 0]
        whole = super().forward(hidden_states, **kwargs) - hidden_states
        passed = self.router_proj(hidden_states) * 0.1
        return hidden_states + torch.where(runs, weight * whole, (1 - weight) * passed)


class _SkipGPTLayer(nn.Module):
    def __init__(self, block: Any, width: int) -> None:
        super().__init__()
        self.block = block
        self.router_attention, self.router_mlp = nn.Linear(width, 2), nn.Linear(width, 2)
        self.routing_matrix: dict[str, Any] = {"attention": None, "mlp": None}
        self.truth: dict[str, Tensor] = {}

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        draws = {}
        for name, router in (("attention", self.router_attention), ("mlp", self.router_mlp)):
            drawn = F.gumbel_softmax(router(hidden_states), tau=0.5, hard=True, dim=-1)
            draws[name] = drawn[..., :1]
            self.routing_matrix[name] = drawn[..., 1].detach().cpu().numpy()
            self.truth["attn" if name == "attention" else name] = drawn[..., 0] > 0.5
        made, _ = self.block.self_attn(self.block.input_layernorm(hidden_states), **kwargs)
        states = hidden_states + made * draws["attention"]
        mlp = self.block.mlp(self.block.post_attention_layernorm(states))
        after: Tensor = states + mlp * draws["mlp"]
        return after


class _TokenRouter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight_predictor = nn.Linear(width, 1)

    def forward(self, states: Tensor) -> Tensor:
        weights: Tensor = self.weight_predictor(states).squeeze(-1)
        return weights


class _MoDLayer(nn.Module):
    def __init__(self, block: Any, width: int, capacity: float) -> None:
        super().__init__()
        self.router, self.block, self.capacity = _TokenRouter(width), block, capacity
        self.truth: Tensor | None = None

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        weights = self.router(hidden_states)
        count = max(1, int(self.capacity * hidden_states.shape[1]))
        limit = weights.topk(count, dim=1).values[:, -1:]
        self.truth = weights > limit if count > 1 else weights >= limit
        made = hidden_states.clone()
        cosine, sine = kwargs.pop("position_embeddings")
        kwargs |= {"attention_mask": None, "past_key_values": None}
        for row, runs in enumerate(self.truth):
            if runs.any():
                rotary = (cosine[:, runs], sine[:, runs])
                some = hidden_states[row, runs][None]
                ran = self.block(some, position_embeddings=rotary, **kwargs)
                made[row, runs] = ran[0] * weights[row, runs, None]
        return made


def _routed_forward(self: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
    given = self.input_layernorm(hidden_states)
    asked = given if self.route_level == "token" else given.mean(dim=1, keepdim=True)
    runs = (torch.sigmoid(self.router(asked)) - self.threshold >= 0).to(given.dtype)
    self.truth = (runs[..., 0] > 0).expand(hidden_states.shape[:2])
    made, _ = self.self_attn(given, **kwargs)
    attended = hidden_states + made * (runs if self.route_target == "attn" else 1)
    mlp = self.mlp(self.post_attention_layernorm(attended))
    states: Tensor = attended + mlp * (runs if self.route_target == "mlp" else 1)
    if self.route_target == "block":
        states = hidden_states + (states - hidden_states) * runs
    return states


def flexidepth() -> Any:
    """Routers on the upper half of the layers."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    for number in range(3, tiny.LAYERS):
        layer = _FlexiLayer(model.config, number)
        layer.load_state_dict(model.model.layers[number].state_dict(), strict=False)
        nn.init.normal_(layer.router.head.weight, std=1.0)
        model.model.layers[number] = layer
    return model.eval()


def skipgpt() -> Any:
    """Two routers per layer that draw."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    layers = [_SkipGPTLayer(layer, model.config.hidden_size) for layer in model.model.layers]
    model.model.layers = nn.ModuleList(layers)
    return model.eval()


def mixture_of_depths(*, capacity: float = 0.5) -> Any:
    """Routers on odd layers that rank the tokens."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    for number in range(1, tiny.LAYERS, 2):
        block = model.model.layers[number]
        model.model.layers[number] = _MoDLayer(block, model.config.hidden_size, capacity)
    return model.eval()


def router_tuning(*, target: str = "attn", level: str = "token") -> Any:
    """Routers put into stock layers, whose forwards are replaced."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    for number, layer in enumerate(model.model.layers):
        layer.is_mod = number % 2 == 1
        if layer.is_mod:
            layer.route_target, layer.route_level, layer.threshold = target, level, 0.5
            layer.router = nn.Linear(model.config.hidden_size, 1, bias=False)
            layer.forward = MethodType(_routed_forward, layer)
    return model.eval()


class _RepeatingModel(nn.Module):
    """The decoder loop with layers that are skipped, run or repeated."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.config, self.embed_tokens, self.norm = inner.config, inner.embed_tokens, inner.norm
        self.layers, self.rotary_emb, self.num_windows = inner.layers, inner.rotary_emb, 8
        width = inner.config.hidden_size
        self.routers = nn.ModuleList(nn.Linear(width, 3) for _ in self.layers)
        self.truth: list[int] = []

    def forward(self, input_ids: Tensor, **kwargs: Any) -> Any:
        states = self.embed_tokens(input_ids)
        places = torch.arange(input_ids.shape[1])[None]
        rotary = self.rotary_emb(states, places)
        self.truth = []
        for router, layer in zip(self.routers, self.layers, strict=True):
            windows = states.tensor_split(min(self.num_windows, states.shape[1]), dim=1)
            votes = torch.stack([router(window.mean(dim=1)) for window in windows]).mean(dim=0)
            times = int(votes.argmax(-1)[0])
            self.truth.append(times)
            for _ in range(times):
                states = layer(states, position_embeddings=rotary, position_ids=places)
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return BaseModelOutputWithPast(last_hidden_state=self.norm(states))


def dr_llm() -> Any:
    """Layers that a text skips, runs or repeats."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    model.model = _RepeatingModel(model.model)
    for router in model.model.routers:
        nn.init.normal_(router.weight, std=4.0)
    return model.eval()


class RoutedLayer(LlamaDecoderLayer):
    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config, number)
        self.router = nn.Linear(config.hidden_size, 1)
        self.truth: Tensor | None = None

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        runs = torch.sigmoid(self.router(hidden_states)) > 0.5
        self.truth = runs[..., 0]
        return torch.where(runs, super().forward(hidden_states, **kwargs), hidden_states)


def routed() -> Any:
    """Layers with a router of no known method."""
    model: Any = tiny.backbone(seed=0)
    torch.manual_seed(1)
    model.model.layers = nn.ModuleList(RoutedLayer(model.config, n) for n in range(tiny.LAYERS))
    return model.eval()


HRM_ROUNDS = {"H_cycles": 2, "L_cycles": 3}
HRM_RUNS = [6, 6, 2, 2]
"""Of the two layers of the low stack, and of the high, as these rounds have it."""


def hrm_text() -> Any:
    """Two stacks of two layers that run in rounds, as transformers has them."""
    from transformers import HrmTextConfig, HrmTextForCausalLM

    torch.manual_seed(0)
    config = HrmTextConfig(
        vocab_size=len(tiny.tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=8,
        max_position_embeddings=256,
        **HRM_ROUNDS,
    )
    return HrmTextForCausalLM(config).eval()


def truth_of(model: Any) -> dict[tuple[int, str], Tensor]:
    """Return which tokens ran in the last forward, by layer and unit, as the layers noted it."""
    found: dict[tuple[int, str], Tensor] = {}
    for number, layer in enumerate(model.model.layers):
        noted = getattr(layer, "truth", None)
        if isinstance(noted, dict):
            found |= {(number, unit): ran for unit, ran in noted.items()}
        elif noted is not None:
            found[number, getattr(layer, "route_target", "block")] = noted
    return found
