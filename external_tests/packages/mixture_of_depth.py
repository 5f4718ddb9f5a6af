"""Mixture-of-Depths as the package `mixture-of-depth` runs it: the top-k is decided inline.

Recorded: its rule, repeated beside it on the router's weights. Read otherwise: which hidden states
its block received, which it changed, and a top-k in plain Python.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from MoD import MoD, apply_mod_to_hf
from MoD.modeling.models.LlamaMoD import LlamaMoDForCausalLM
from recorder_kit import Recorder
from tiny import SIZES, TEXTS, VOCABULARY, decode, encode, write_reading
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS = 6
CAPACITY = 0.5
SITES = [
    {
        "layer": layer,
        "unit": "block",
        "rule": "topk",
        "polarity": 1,
        "skip_path": "identity",
        "kv": "absent",
        "computed_anyway": False,
        "scope": "sequence",
    }
    for layer in range(1, LAYERS, 2)
]


def config(attention: str) -> LlamaConfig:
    made = LlamaConfig(
        **SIZES,
        num_hidden_layers=LAYERS,
        max_position_embeddings=256,
        architectures=["LlamaForCausalLM"],
        mlp_bias=False,  # the package's own Llama asks for it; this transformers has no such field
    )
    made._attn_implementation = attention
    return made


def prepared(model: Any) -> Any:
    for layer in model.model.layers:
        if isinstance(layer, MoD):
            layer.capacity = CAPACITY
    return model.eval()


def selected(weights: Tensor, capacity: float) -> tuple[Tensor, Tensor]:
    """Return the package's rule: strictly above the k-th weight, unless k is 1."""
    k = max(1, int(capacity * weights.shape[1]))
    threshold = weights.topk(k, dim=1).values[:, -1:]
    return (weights > threshold if k > 1 else weights >= threshold), threshold


def with_ties(weights: Tensor, capacity: float) -> tuple[Tensor, Tensor]:
    """Return the rule that the paper's words suggest, which is not the package's: k tokens run."""
    _, threshold = selected(weights, capacity)
    return weights >= threshold, threshold


def record(model: Any, recorder: Recorder, *, rule: Any = selected) -> None:
    def read(module: Any, inputs: Any, output: Any) -> dict[str, Any]:
        weights = module.router(inputs[0])
        ran, threshold = rule(weights, module.capacity)
        return {"ran": ran, "score": weights, "threshold": threshold.expand_as(weights)}

    recorder.hook(model, "model.layers.{layer}", read, unit="block")


class Watch:
    """Reads what happened without the rule: from hidden states, and by a sort in plain Python."""

    def __init__(self, model: Any) -> None:
        self.passes: list[dict[str, list[Tensor]]] = []
        self._handles: list[Any] = []
        for layer in model.model.layers:
            if isinstance(layer, MoD):
                self._watch(layer)
        self._handles.append(model.register_forward_pre_hook(self._begin))

    def _begin(self, *_: Any) -> None:
        self.passes.append({"block received": [], "state changed": [], "sorted by hand": []})

    def _watch(self, layer: MoD) -> None:
        got: list[Tensor] = []
        weights: list[Tensor] = []

        def before_block(_: Any, args: Any) -> None:
            got.append(args[0][0])

        def after_router(_: Any, __: Any, output: Tensor) -> None:
            weights.append(output)

        def after(_: Any, args: Any, output: Any) -> None:
            entered, left = args[0], output[0]
            received = torch.zeros(entered.shape[:2], dtype=torch.bool)
            for state in (state for states in got for state in states):
                received |= (entered == state).all(-1)
            now = self.passes[-1]
            now["block received"].append(received)
            now["state changed"].append(~(entered == left).all(-1))
            rows = [by_hand(row, layer.capacity) for row in weights[-1].tolist()]
            now["sorted by hand"].append(torch.tensor(rows))
            got.clear()
            weights.clear()

        self._handles += [
            layer.block.register_forward_pre_hook(before_block),
            layer.router.register_forward_hook(after_router),
            layer.register_forward_hook(after),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def decisions(self, way: str, at: int = 0) -> Tensor:
        """Return [batch, tokens, sites] of a pass."""
        return torch.stack(self.passes[at][way], dim=-1)


def by_hand(weights: list[float], capacity: float) -> list[bool]:
    k = max(1, int(capacity * len(weights)))
    kth = sorted(weights, reverse=True)[k - 1]
    return [value > kth or (k == 1 and value == kth) for value in weights]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask and positions of two texts, padded on the right."""
    rows = [encode(text) for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask, torch.arange(width).expand(len(rows), -1)


def decisions_of(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    watch = Watch(model)
    positions = torch.arange(ids.shape[1]).expand(len(ids), -1)
    model(ids, attention_mask=mask, position_ids=positions, use_cache=False)
    watch.remove()
    return watch.decisions("block received")


def refused(run: Any) -> str:
    """Return the error that a run ends in."""
    try:
        run()
    except (AttributeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    return "runs"


def forced(model: Any, ids: Tensor) -> tuple[int, int]:
    """Let the first of every two tokens run, by other weights; return what obeyed, of how many.

    No more than k - 1 tokens of a sequence can run, and weights scale what the block gives.
    """
    k = int(CAPACITY * ids.shape[1])
    wanted = (torch.arange(ids.shape[1]) % 2 == 0) & (torch.arange(ids.shape[1]) < 2 * (k - 1))
    hooks = [
        layer.router.register_forward_hook(lambda *_: torch.where(wanted, 1.0, 0.5)[None])
        for layer in model.model.layers
        if isinstance(layer, MoD)
    ]
    ran = decisions_of(model, ids, torch.ones_like(ids))[0]
    for hook in hooks:
        hook.remove()
    return int((ran == wanted[:, None]).sum()), ran.numel()


@torch.no_grad()
def padded_batch(folder: Path) -> None:
    torch.manual_seed(0)
    model = prepared(LlamaMoDForCausalLM(config("eager")))
    ids, mask, positions = batch()
    texts = [[t if m else None for t, m in zip(decode(r), n)] for r, n in zip(ids.tolist(), mask)]
    inputs = {"attention_mask": mask, "position_ids": positions, "use_cache": False}
    plain = model(ids, **inputs).logits
    for name, rule in (("batch", selected), ("batch.fault-tie", with_ties)):
        path = folder / f"mixture-of-depth.{name}.jsonl"
        with Recorder(path, sites=SITES, layers=LAYERS, model="LlamaMoD", family="MoD") as recorder:
            record(model, recorder, rule=rule)
            recorder.tokens(texts)
            assert torch.equal(model(ids, **inputs).logits, plain)
    watch = Watch(model)
    model(ids, **inputs)
    watch.remove()
    kept = mask.bool()
    ways = {way: watch.decisions(way)[kept] for way in watch.passes[0]}
    long, short = ids[:1], ids[1:, : int(mask[1].sum())]
    one, whole = (
        decisions_of(model, short, torch.ones_like(short)),
        watch.decisions("state changed"),
    )
    changed = long.clone()
    changed[0, -1] = (changed[0, -1] + 1) % VOCABULARY
    ones = torch.ones_like(long)
    first, again = decisions_of(model, long, ones), decisions_of(model, long, ones)
    future = decisions_of(model, changed, ones)
    write_reading(
        folder / "mixture-of-depth.batch.jsonl",
        packages=["mixture-of-depth"],
        readings=ways,
        seen={
            "earlier decisions moved by another last token": int((first != future)[:, :-1].sum()),
            "of": first[:, :-1].numel(),
            "decisions of the short text that differ alone and padded in a batch": int(
                (one[0] != whole[1, : short.shape[1]]).sum()
            ),
            "of its": one.numel(),
            "decisions that differ in two runs": int((first != again).sum()),
            "forced decisions obeyed, and of how many": forced(model, long),
            "a batch without positions of every row": refused(
                lambda: model(ids, attention_mask=mask)
            ),
            "its Llama without mlp_bias": refused(
                lambda: LlamaMoDForCausalLM(LlamaConfig(hidden_size=32, vocab_size=VOCABULARY))
            ),
            "of 51 tokens, with k = 25, run": sorted(set(first.sum(1)[0].tolist())),
        },
    )


@torch.no_grad()
def generated(folder: Path) -> None:
    torch.manual_seed(1)
    model = prepared(apply_mod_to_hf(LlamaForCausalLM(config("sdpa"))))
    prompt = torch.tensor([encode(TEXTS[0])])
    made = {
        "attention_mask": torch.ones_like(prompt),
        "max_new_tokens": 12,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    plain = model.generate(prompt, **made)
    path = folder / "mixture-of-depth.generate.jsonl"
    watch = Watch(model)
    with Recorder(path, sites=SITES, layers=LAYERS, model="Llama", family="MoD") as recorder:
        record(model, recorder)

        def announce(_: Any, args: Any, kwargs: Any) -> None:
            ids = kwargs["input_ids"]
            phase = "prefill" if ids.shape[1] > 1 else "decode"
            recorder.tokens(
                [decode(ids[0].tolist())], sequences=[0], phase=[[phase] * ids.shape[1]]
            )

        handle = model.register_forward_pre_hook(announce, with_kwargs=True)
        assert torch.equal(model.generate(prompt, **made), plain)
        handle.remove()
    watch.remove()
    count = len(watch.passes)
    decoded = torch.cat([watch.decisions("state changed", at) for at in range(1, count)], 1)
    write_reading(
        path,
        packages=["mixture-of-depth"],
        readings={
            way: torch.cat([watch.decisions(way, at)[0] for at in range(count)])
            for way in watch.passes[0]
        },
        seen={
            "share of decoded tokens' decisions that run": float(decoded.float().mean()),
        },
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    padded_batch(Path(sys.argv[1]))
    generated(Path(sys.argv[1]))
