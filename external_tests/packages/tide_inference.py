"""TIDE of the package `tide-inference`: tokens leave where a router says so.

Recorded: one wrap of the engine's `_score_router`, with its rule beside it. Read otherwise: which
layer's state, after the final norm, the head was given for a token; and the package's counts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import TIDE
import torch
from recorder_kit import Recorder
from TIDE.config import TIDEConfig
from TIDE.router import RouterCheckpoint, TokenRouter
from tiny import SIZES, TEXTS, decode, encode, write_reading
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS = 8
EXITS = [1, 3, 5]
THRESHOLD = 0.6
SITES = [
    {
        "layer": layer,
        "unit": "block",
        "rule": "gt",
        "polarity": -1,
        "skip_path": "identity",
        "kv": "computed",
        "computed_anyway": True,
        "scope": "token",
    }
    for layer in range(EXITS[0] + 1, LAYERS)
]
"""Layers above the first exit; those up to the next exit share a decision."""


def engine(folder: Path, *, threshold: float) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES,
        num_hidden_layers=LAYERS,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    torch.nn.init.uniform_(model.model.norm.weight, 0.5, 1.5)  # not 1, as in a trained model
    routers = {layer: TokenRouter(32, 16) for layer in EXITS}
    for router in routers.values():
        torch.nn.init.normal_(router.up.weight, 0, 3)
    path = folder / "router.pt"
    RouterCheckpoint(routers, 32, 16).save(path)
    settings = TIDEConfig(exit_threshold=threshold, min_layers=0, router_bottleneck_dim=16)
    made = TIDE.TIDE(model, path, settings)
    path.unlink()
    return made


def sites_of(exit_layer: int) -> list[int]:
    """Return the sites that an exit decides: the layers up to the next exit."""
    last = min([each for each in EXITS if each > exit_layer], default=LAYERS - 1)
    return [layer - EXITS[0] - 1 for layer in range(exit_layer + 1, last + 1)]


class Exits:
    """Repeats the engine's rule on each router's scores, and notes it at the layers above."""

    def __init__(self, recorder: Recorder, *, threshold: float) -> None:
        self.recorder, self.threshold = recorder, threshold
        self.left: Tensor | None = None

    def scored(self, layer: int, scores: Tensor) -> None:
        if self.left is None or layer == EXITS[0]:
            self.left = torch.zeros_like(scores, dtype=torch.bool)
        asked = scores.masked_fill(self.left, torch.nan)
        self.left = self.left | (scores > self.threshold)
        for site in sites_of(layer):
            self.recorder.gate(site, ran=~self.left, score=asked, threshold=self.threshold)


def record(made: Any, exits: Exits) -> Any:
    """Wrap the engine's scoring; return what takes the wrap off."""
    score = made._score_router

    def scored(hidden: Tensor, layer: int) -> Tensor:
        found: Tensor = score(hidden, layer)
        exits.scored(layer, found)
        return found

    made._score_router = scored
    return lambda: delattr(made, "_score_router")


def depth_of(states: list[Tensor], given: Tensor, norm: Any) -> list[int]:
    """Return the layer whose normed state the head was given, per token; the last where none is."""
    depths = []
    for place in range(given.shape[0]):
        same = [
            layer for layer in EXITS if torch.equal(norm(states[layer + 1][place]), given[place])
        ]
        depths.append(same[0] if same else LAYERS - 1)
    return depths


def rows_of(depths: list[int]) -> list[list[bool]]:
    return [[site["layer"] <= depth for site in SITES] for depth in depths]


@torch.no_grad()
def forward(folder: Path) -> None:
    made = engine(folder, threshold=THRESHOLD)
    rows = [encode(text)[:24] for text in TEXTS]
    ids = torch.tensor(rows)
    plain = made(ids)
    path = folder / "tide-inference.forward.jsonl"
    for fault in ("", ".fault-threshold"):
        name = path.with_name(path.stem + fault + ".jsonl")
        with Recorder(name, sites=SITES, layers=LAYERS, model="Llama", family="TIDE") as recorder:
            remove = record(made, Exits(recorder, threshold=0.7 if fault else THRESHOLD))
            recorder.tokens([decode(row) for row in rows], id=rows)
            assert torch.equal(made(ids), plain)
            remove()
    given: list[Tensor] = []
    handle = made._lm_head.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    computed: list[int] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: computed.append(args[0][..., 0].numel()))
        for layer in made.model.model.layers
    ]
    made(ids)
    for hook in [handle, *hooks]:
        hook.remove()
    states = made.model(ids, output_hidden_states=True).hidden_states
    flat = [state.reshape(-1, state.shape[-1]) for state in states]
    depths = depth_of(flat, given[-1].reshape(-1, given[-1].shape[-1]), made._final_norm)
    counts = {layer: depths.count(layer) for layer in EXITS}
    stats = made.last_stats
    assert counts == {layer: stats.exits_per_layer.get(layer, 0) for layer in EXITS}
    wanted = [EXITS[place % 3] if place % 4 else LAYERS - 1 for place in range(ids.numel())]
    obeyed = forced(made, ids, wanted)
    never = engine(folder, threshold=2.0)
    moved = never(ids) - never.model(ids).logits
    write_reading(
        path,
        packages=["tide-inference"],
        readings={"given to the head": rows_of(depths)},
        seen={
            "tokens that left by layer, by hidden states": counts,
            "by the package's own count": stats.exits_per_layer,
            "logits with no exit at all differ from the model's own by at most": float(
                moved.abs().max()
            ),
            "forced exits obeyed": sum(map(int.__eq__, obeyed, wanted)),
            "of": len(wanted),
            "decoder layers computed per token": sum(computed) / ids.numel(),
            "decoder layers whose result a token uses, on average": sum(
                depth + 1 for depth in depths
            )
            / len(depths),
        },
    )


def forced(made: Any, ids: Tensor, wanted: list[int]) -> list[int]:
    """Let each token leave where it is wanted, by other scores; return where it left."""
    given: list[Tensor] = []
    states: list[Any] = []
    made._score_router = lambda hidden, layer: (
        (torch.tensor(wanted) == layer).view(hidden.shape[:-1]).to(hidden.dtype)
    )
    hooks = [
        made._lm_head.register_forward_pre_hook(lambda _, args: given.append(args[0])),
        made.model.register_forward_hook(lambda _, __, out: states.append(out.hidden_states)),
    ]
    made(ids)
    for hook in hooks:
        hook.remove()
    del made._score_router
    flat = [state.reshape(-1, state.shape[-1]) for state in states[-1]]
    return depth_of(flat, given[-1].reshape(-1, given[-1].shape[-1]), made._final_norm)


@torch.no_grad()
def generated(folder: Path) -> None:
    made = engine(folder, threshold=THRESHOLD)
    prompt = torch.tensor([encode(TEXTS[0])])
    options = {"max_new_tokens": 24, "temperature": 0.0}
    plain = made.generate(prompt, **options)
    path = folder / "tide-inference.generate.jsonl"
    with Recorder(path, sites=SITES, layers=LAYERS, model="Llama", family="TIDE") as recorder:
        exits = Exits(recorder, threshold=THRESHOLD)
        remove = record(made, exits)

        def announce(_: Any, args: Any, kwargs: Any) -> None:
            ids = args[0]
            phase = "prefill" if ids.shape[1] > 1 else "decode"
            known = {"sequences": [0], "phase": [[phase] * ids.shape[1]]}
            recorder.tokens([decode(ids[0].tolist())], **known)
            # Where no router is asked, as in the prompt and above an exit of all, all sites run.
            exits.left = None
            if phase == "prefill":
                for site in range(len(SITES)):
                    recorder.gate(site, ran=1)

        handle = made.model.register_forward_pre_hook(announce, with_kwargs=True)
        assert torch.equal(made.generate(prompt, **options), plain)
        remove()
        handle.remove()
    counts = made.last_stats.exits_per_layer
    left = {"alone": sum(counts.values())}
    pair = torch.cat([prompt, prompt.flip(1)])
    made.generate(pair, **options)
    left["in a batch of two"] = made.last_stats.total_exited // 2
    depths = [LAYERS - 1] * prompt.shape[1] + chosen(made, prompt, options)
    write_reading(
        path,
        packages=["tide-inference"],
        readings={"given to the head": rows_of(depths)},
        seen={
            "tokens that left by layer, by hidden states": {
                layer: depths.count(layer) for layer in EXITS
            },
            "by the package's own count": counts,
            "of 24 generated tokens left": left,
        },
    )


def chosen(made: Any, prompt: Tensor, options: dict[str, Any]) -> list[int]:
    """Return the layer that the head read last in each step of a generation."""
    depths: list[int] = []
    steps: list[list[Tensor]] = []
    states: list[Any] = []
    hooks = [
        made.model.register_forward_pre_hook(lambda *_: steps.append([])),
        made.model.register_forward_hook(lambda _, __, out: states.append(out.hidden_states)),
        made._lm_head.register_forward_pre_hook(lambda _, args: steps[-1].append(args[0])),
    ]
    made.generate(prompt, **options)
    for hook in hooks:
        hook.remove()
    for heads, hidden in list(zip(steps, states))[1:]:
        if len(heads) == 1:  # the model's own call and no other
            depths.append(LAYERS - 1)
        else:
            depths += depth_of([s[0] for s in hidden], heads[1][0], made._final_norm)
    return depths


if __name__ == "__main__":
    forward(Path(sys.argv[1]))
    generated(Path(sys.argv[1]))
