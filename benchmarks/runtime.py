"""What skipping saves in time: the gathered runtime over the dense model, beside what it could.

``python benchmarks/runtime.py [MODEL] [--dtype float32] [--rounds 7] [--budget B]``: prefill of 512
tokens with the logits of the last one, and decoding of 128 tokens after 256, on this machine.
Medians of alternating runs, as ratios to the dense model: masked, gathered, and gathered with a
recorder. The ideal is what the decisions allow: in FLOPs for prefill, in bytes of weights for
decoding. ``arrived`` is the share of the ideal saving that came out as time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import skipviz
from skipviz.analysis.flops import realised_budget, token_flops
from skipviz.families.gated.modules import gated_units

PREFILL, BEFORE, DECODED = 512, 256, 128
TEXT = "".join(
    (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/architecture.md")
)


def prefill(model: skipviz.SkipModel, ids: Tensor) -> float:
    """Return the seconds of one forward of all tokens."""
    began = time.perf_counter()
    model.model(ids, use_cache=False, logits_to_keep=1)
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
        needed += size(unit.gate, unit.adapter.down) + (1 - rate) * size(unit.adapter.up)
        kept = (unit.unit.k_proj, unit.unit.v_proj) if kind == "attn" else ()
        saved += (1 - rate) * (size(unit.unit) - size(*kept))
    return (whole - added + needed - saved) / (whole - added)


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
        ideals = {"prefill": ideal_prefill(trace), "decode": ideal_decode(masked, trace)}
        print(f"budget {budget:g}, realised {realised_budget(trace):.3f}")
        with torch.inference_mode():
            for name, run in (("prefill", prefill), ("decode", decode)):
                ratios = measured(run, dense, others, ids, given.rounds)
                middle = {key: statistics.median(found) for key, found in ratios.items()}
                spread = np.quantile(ratios["gathered"], [0.25, 0.75])
                arrived = (1 - middle["gathered"]) / (1 - ideals[name])
                print(
                    f"  {name}: gathered {middle['gathered']:.3f} of dense (middle half "
                    f"{spread[0]:.3f} to {spread[1]:.3f}), ideal {ideals[name]:.3f}, arrived "
                    f"{arrived:.0%}; masked {middle['masked']:.3f}; recording on top "
                    f"{middle['recorded']:.3f}"
                )


if __name__ == "__main__":
    main()
