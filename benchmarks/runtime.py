"""What skipping saves in time: the gathered runtime over the dense model, beside what it could.

``python benchmarks/runtime.py [MODEL] [--dtype float32] [--rounds 7] [--budget B]``: prefill of 512
tokens with the logits of the last one, decoding of 128 tokens after 256, and prefill of 8 unlike
texts with padding, on this machine. Medians of alternating runs, as ratios to the dense model:
masked, gathered, and gathered with a recorder. The ideal is what the decisions allow: in FLOPs for
prefill, in bytes of weights for decoding. ``arrived`` is the share of the ideal saving that came
out as time. Then what gates and adapters take, over the time of the dense model, and the most
memory that a process of its own holds while it runs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import skipviz
from skipviz.analysis.flops import realised_budget, token_flops
from skipviz.families.gated import gathered, one_token
from skipviz.families.gated.modules import Gate, gated_units

PREFILL, BEFORE, DECODED = 512, 256, 128
BATCH = (512, 480, 430, 390, 340, 280, 210, 128)
"""Lengths of the texts of a batch."""
TEXT = "".join(
    (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/architecture.md")
)


def prefill(model: skipviz.SkipModel, ids: Tensor) -> float:
    """Return the seconds of one forward of all tokens."""
    began = time.perf_counter()
    model.model(ids, use_cache=False, logits_to_keep=1)
    return time.perf_counter() - began


def padded(model: skipviz.SkipModel, ids: Tensor) -> float:
    """Return the seconds of one forward of unlike texts, padded on the left."""
    rows = torch.zeros(len(BATCH), max(BATCH), dtype=torch.long)
    mask = torch.zeros_like(rows)
    for row, length in enumerate(BATCH):
        rows[row, -length:] = ids[0, :length].roll(row)
        mask[row, -length:] = 1
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    began = time.perf_counter()
    model.model(rows, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=1)
    return time.perf_counter() - began


def decode(model: skipviz.SkipModel, ids: Tensor) -> float:
    """Return the seconds of running tokens one by one from a cache."""
    cache = model.model(ids[:, :BEFORE], use_cache=True, logits_to_keep=1).past_key_values
    began = time.perf_counter()
    for place in range(BEFORE, BEFORE + DECODED):
        token = ids[:, place : place + 1]
        cache = model.model(token, past_key_values=cache, use_cache=True).past_key_values
    return time.perf_counter() - began


def ideal_prefill(trace: skipviz.Trace) -> float:
    """Return the share of the dense FLOPs that the decisions need, the head run once."""
    flops = token_flops(trace)
    head = int(flops["head"][0])
    needed = int((flops["total"] - flops["head"]).sum()) + head
    return needed / (int((flops["dense_total"] - flops["head"]).sum()) + head)


def ideal_decode(model: skipviz.SkipModel, trace: skipviz.Trace) -> float:
    """Return the share of the dense model's bytes of weights that decoding must read."""

    def size(*modules: nn.Module) -> int:
        return sum(p.numel() * p.element_size() for m in modules for p in m.parameters())

    ran = (trace.matrix("exec_count") > 0)[BEFORE : BEFORE + DECODED].mean(axis=0)
    whole = size(model.model.lm_head, model.model.model.layers)
    added = needed = saved = 0.0
    for rate, (_, kind, unit) in zip(ran, gated_units(model.model), strict=True):
        added += size(unit.gate, unit.adapter)
        asked = 1.0 if isinstance(unit.gate, Gate) else 1 - rate  # of fixed rates nothing looks
        needed += size(unit.gate) + asked * size(unit.adapter.down)
        needed += (1 - rate) * size(unit.adapter.up)
        kept = (unit.unit.k_proj, unit.unit.v_proj) if kind == "attn" else ()
        saved += (1 - rate) * (size(unit.unit) - size(*kept))
    return (whole - added + needed - saved) / (whole - added)


def ideal_decode_exits(model: skipviz.SkipModel, trace: skipviz.Trace) -> float:
    """Return the same of a model with early exits, where keys and values are made for all."""

    def size(*tensors: Tensor) -> int:
        return sum(each.numel() * each.element_size() for each in tensors)

    decoded = slice(BEFORE, BEFORE + DECODED)
    ran = (trace.matrix("exec_count") > 0)[decoded].mean(axis=0)
    asked = ~np.isnan(trace.matrix("score"))[decoded]
    exits, layers = model.model.exits, model.model.model.layers
    whole = size(*model.model.lm_head.parameters(), *layers.parameters())
    needed = float(whole)
    first = exits.config.exits[0] + 1
    for number, translator in zip(exits.config.exits, exits.translators, strict=True):
        question = size(*translator.parameters(), exits.into, exits.out)
        needed += asked[:, number + 1 - first].mean() * question
    for rate, layer in zip(ran, layers[first:], strict=True):
        kept = (*layer.self_attn.k_proj.parameters(), *layer.self_attn.v_proj.parameters())
        needed -= (1 - rate) * (size(*layer.parameters()) - size(*kept))
    return needed / whole


def measured(
    run: Callable[[skipviz.SkipModel, Tensor], float],
    dense: skipviz.SkipModel,
    others: dict[str, skipviz.SkipModel],
    ids: Tensor,
    rounds: int,
) -> dict[str, list[float]]:
    """Return the ratios to the dense model of alternating runs."""
    ratios: dict[str, list[float]] = {name: [] for name in (*others, "recorded")}
    for each in (dense, *others.values()):
        run(each, ids)
    for _ in range(rounds):
        for name, model in others.items():
            ratios[name].append(run(model, ids) / run(dense, ids))
        with skipviz.record(others["gathered"], statistics=False):
            seconds = run(others["gathered"], ids)
        ratios["recorded"].append(seconds / run(others["gathered"], ids))
    return ratios


def gates_share(
    run: Callable[[skipviz.SkipModel, Tensor], float],
    dense: skipviz.SkipModel,
    fast: skipviz.SkipModel,
    ids: Tensor,
    rounds: int,
) -> float:
    """Return the time of gates and adapters over that of the dense model."""
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            result = function(*args, **kwargs)
            spent += time.perf_counter() - began
            return result

        return wrapped

    shares = []
    for _ in range(rounds):
        with (
            patch.object(gathered.Look, "__call__", timed(gathered.Look.__call__)),
            patch.object(gathered, "stand_in", timed(gathered.stand_in)),
            patch.object(one_token, "stand_in", timed(one_token.stand_in)),
        ):
            before = spent
            run(fast, ids)
            part = spent - before
        # ``decode`` begins with a prefill, whose gates are left out of its time.
        if run is decode:
            with patch.object(gathered.Look, "__call__", timed(gathered.Look.__call__)):
                before = spent
                fast.model(ids[:, :BEFORE], use_cache=True, logits_to_keep=1)
                part -= spent - before
        shares.append(part / run(dense, ids))
    return statistics.median(shares)


def peak(name: str, dtype: str, budget: float | None) -> float:
    """Return the most bytes this process held while it ran prefill and decoding."""
    model = skipviz.load(name, dtype=dtype)
    if budget is None:
        assert model.settings is not None
        backbone = model.settings.backbone
        del model
        model = skipviz.load(backbone, dtype=dtype)
    else:
        model = skipviz.with_runtime(skipviz.at_budget(model, budget), "gathered")
    ids = model.tokenizer(TEXT, return_tensors="pt").input_ids[:, :PREFILL]
    with torch.inference_mode():
        prefill(model, ids)
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
        prefill(model, ids)
        decode(model, ids)
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-gated")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, action="append")
    given = parser.parse_args()
    first = skipviz.load(given.model, dtype=given.dtype)
    if first.settings is None:
        raise SystemExit(f"{given.model} has no gates.")
    dense = skipviz.load(first.settings.backbone, dtype=given.dtype)
    ids = first.tokenizer(TEXT, return_tensors="pt").input_ids[:, :PREFILL]
    print(f"{given.model}, {given.dtype}, {torch.get_num_threads()} threads, medians of "
          f"{given.rounds} alternating runs")  # fmt: skip
    for budget in given.budget or sorted(first.settings.budgets, reverse=True):
        masked = skipviz.at_budget(first, budget)
        others = {"masked": masked, "gathered": skipviz.with_runtime(masked, "gathered")}
        trace = skipviz.trace(masked, ids[0].tolist())
        bytes_needed = ideal_decode_exits if hasattr(masked.model, "exits") else ideal_decode
        ideals = {"prefill": ideal_prefill(trace), "decode": bytes_needed(masked, trace)}
        print(f"budget {budget:g}, realised {realised_budget(trace):.3f}")
        with torch.inference_mode():
            for name, run in (("prefill", prefill), ("decode", decode), ("padded", padded)):
                ratios = measured(run, dense, others, ids, given.rounds)
                middle = {key: statistics.median(found) for key, found in ratios.items()}
                spread = np.quantile(ratios["gathered"], [0.25, 0.75])
                print(
                    f"  {name}: gathered {middle['gathered']:.3f} of dense (middle half "
                    f"{spread[0]:.3f} to {spread[1]:.3f}); masked {middle['masked']:.3f}; "
                    f"recording on top {middle['recorded']:.3f}"
                )
                if name in ideals:
                    arrived = (1 - middle["gathered"]) / (1 - ideals[name])
                    print(f"    ideal {ideals[name]:.3f}, arrived {arrived:.0%}")
                if name in ideals and not hasattr(masked.model, "exits"):
                    share = gates_share(run, dense, others["gathered"], ids, given.rounds)
                    print(f"    gates and adapters {share:.1%} of dense")
    del dense, first, masked, others
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        held = [pool.apply(peak, (given.model, given.dtype, each)) for each in (None, budget)]
    print(f"most memory: gathered {held[1] / held[0]:.3f} of dense")


if __name__ == "__main__":
    main()
