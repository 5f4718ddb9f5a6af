"""Tiny random models whose layers run again for some of the tokens, as reference code has them.

Written from what the code does: names of modules, shapes, rules and polarities. What routes keeps
in ``truth`` which tokens ran, [texts, tokens], a row for each recursion, beside any hook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, ModelOutput
from transformers.models.llama.modeling_llama import LlamaModel

from tests import tiny

SHARED, RECURSIONS = 2, 3
CAPACITIES = (0.75, 0.5, 0.25)


class Settings(dict[str, Any]):
    """A mapping whose keys are attributes too, as the reference code's configuration is."""

    __getattr__ = dict.__getitem__


class _LinearRouter(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, out, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        scores: Tensor = self.router(states)
        return scores


@dataclass
class RoutedOutput(ModelOutput):  # type: ignore[misc]
    """What a recursion returns."""

    hidden_state: Tensor | None = None
    selected_tokens: Tensor | None = None


def _run(layers: Any, states: Tensor, places: Tensor, given: dict[str, Any]) -> Tensor:
    """Run layers on some tokens of each text, [texts, k]."""
    rotary = tuple(
        each.expand(states.shape[0], -1, -1).gather(
            1, places[..., None].expand(-1, -1, each.shape[-1])
        )
        for each in given["position_embeddings"]
    )
    for layer in layers:
        states = layer(
            states, attention_mask=None, position_embeddings=rotary,
            past_key_values=given["past_key_values"],
        )  # fmt: skip
    return states


class ExpertRecursion(nn.Module):
    """One recursion under expert choice."""

    def __init__(self, block: Any, cfg: Settings, width: int, capacity: float) -> None:
        super().__init__()
        self.mor, self.mor_type = True, "expert"
        self.block, self.cfg, self.capacity_factor = block, cfg, capacity
        self.mor_router = _LinearRouter(width, 1)
        self.truth = torch.zeros(0)

    def forward(
        self, x: Tensor, prev_selected_tokens: Tensor | None = None, **given: Any
    ) -> RoutedOutput:
        total, width = x, x.shape[-1]
        count = max(1, int(self.capacity_factor * x.shape[1]))
        if prev_selected_tokens is not None:
            x = x.gather(1, prev_selected_tokens.expand(-1, -1, width))
        chances = torch.sigmoid(self.mor_router(x / self.cfg.mor.temp)) * self.cfg.mor.expert.alpha
        weights, taken = chances.topk(count, dim=1, sorted=False)
        taken, order = taken.sort(dim=1)
        weights = weights.gather(1, order)
        if prev_selected_tokens is not None:
            taken = prev_selected_tokens.gather(1, taken)
        where = taken.expand(-1, -1, width)
        if self.cfg.kv_sharing.enable:
            every = torch.arange(total.shape[1]).expand(total.shape[:2])
            made = _run(self.block, total.clone(), every, given).gather(1, where)
        else:
            made = _run(self.block, total.gather(1, where), taken[..., 0], given)
        self.truth = torch.zeros(total.shape[:2], dtype=torch.bool)
        for row in range(len(taken)):
            for place in taken[row, :, 0].tolist():
                self.truth[row, place] = True
        return RoutedOutput(
            hidden_state=total.scatter_add(1, where, made * weights), selected_tokens=taken
        )


class TokenRecursions(nn.Module):
    """All recursions under token choice; one text at a time, as the reference code's masks do."""

    def __init__(self, blocks: Any, cfg: Settings, width: int) -> None:
        super().__init__()
        self.mor, self.mor_type = True, "token"
        self.block_list, self.cfg = blocks, cfg
        self.mor_router = _LinearRouter(width, len(blocks))
        if cfg.mor.token.balancing == "loss_free":
            self.router_bias = nn.Parameter(torch.zeros(len(blocks)), requires_grad=False)
        self.truth = torch.zeros(0)

    def forward(
        self, x: Tensor, prev_selected_tokens: Tensor | None = None, **given: Any
    ) -> RoutedOutput:
        assert len(x) == 1
        emitted = self.mor_router(x / self.cfg.mor.temp)
        chances = emitted.softmax(dim=-1) * self.cfg.mor.token.alpha
        routed = chances
        if self.cfg.mor.token.balancing == "loss_free":
            routed = chances + self.router_bias
        stops = routed.topk(1, dim=-1, sorted=False).indices
        weights = chances.gather(-1, stops)[0]
        stops = stops[0, :, 0]
        final = x.clone()
        self.truth = torch.zeros(len(self.block_list), x.shape[1], dtype=torch.bool)
        for number, block in enumerate(self.block_list):
            inside = torch.where(stops >= number)[0]
            if not len(inside):
                continue
            self.truth[number, inside] = True
            made = _run(block, x[:, inside], inside[None], given)[0]
            for index, place in enumerate(inside.tolist()):
                if stops[place] == number:
                    final[0, place] += made[index] * weights[place]
                else:
                    x = x.clone()
                    x[0, place] = made[index]
        return RoutedOutput(hidden_state=final)


class RecursiveModel(LlamaModel):
    """The loop over layers and recursions."""

    def forward(
        self, input_ids: Any = None, inputs_embeds: Any = None, past_key_values: Any = None,
        use_cache: bool | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        past_key_values = kwargs.pop("cache", past_key_values)  # its name from 5.24 on
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        places = torch.arange(past, past + states.shape[1])[None]
        given = {
            "position_embeddings": self.rotary_emb(states, places),
            "past_key_values": past_key_values,
        }
        before = None
        for layer in self.layers:
            if hasattr(layer, "mor"):
                result = layer(states, prev_selected_tokens=before, **given)
                before, states = result.selected_tokens, result[0]
            else:
                states = layer(states, attention_mask=None, **given)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(states), past_key_values=past_key_values
        )


def _tied(layers: Any) -> list[nn.ModuleList]:
    """Return the shared layers of each recursion, modules of their own with tied weights."""
    blocks = [
        nn.ModuleList(layers[1 + SHARED * each + number] for number in range(SHARED))
        for each in range(RECURSIONS)
    ]
    for block in blocks[1:]:
        for first, layer in zip(blocks[0], block, strict=True):
            for name, weight in first.named_parameters():
                module, _, last = name.rpartition(".")
                setattr(layer.get_submodule(module), last, weight)
    return blocks


def mixture_of_recursions(
    kind: str = "expert", *, sharing: bool = False, balancing: str = "loss"
) -> Any:
    """A layer, two layers that run up to three times, and a layer."""
    model: Any = tiny.backbone(seed=0, layers=2 + SHARED * RECURSIONS)
    inner = RecursiveModel(model.config)
    inner.load_state_dict(model.model.state_dict())
    model.model = inner
    cfg = Settings(
        mor=Settings(
            temp=1.0,
            expert=Settings(alpha=0.1),
            token=Settings(alpha=1.0, balancing=balancing),
        ),
        kv_sharing=Settings(enable=sharing),
    )
    torch.manual_seed(1)
    width, blocks = model.config.hidden_size, _tied(inner.layers)
    if kind == "expert":
        routed: list[nn.Module] = [
            ExpertRecursion(block, cfg, width, share)
            for block, share in zip(blocks, CAPACITIES, strict=True)
        ]
    else:
        routed = [TokenRecursions(nn.ModuleList(blocks), cfg, width)]
        if balancing == "loss_free":
            routed[0].router_bias.copy_(torch.tensor([-0.3, 0.2, 0.1]))  # type: ignore
    inner.layers = nn.ModuleList([inner.layers[0], *routed, inner.layers[-1]])
    return model.eval()


def truth_of(model: Any) -> Tensor:
    """Return which tokens each recursion ran in the last forward, [recursions, tokens]."""
    routed = [layer for layer in model.model.layers if hasattr(layer, "mor")]
    if routed[0].mor_type == "token":
        found: Tensor = routed[0].truth
        return found
    return torch.stack([layer.truth[0] for layer in routed])
