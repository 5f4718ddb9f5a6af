"""What skipping saves in time: the gathered runtime over the dense model, beside what it could.

``python benchmarks/runtime.py [MODEL] [--dtype float32] [--rounds 7] [--budget B]``: prefill of 512
tokens with the logits of the last one, decoding of 128 tokens after 256, and prefill of 8 unlike
texts with padding, on this machine. Medians of alternating runs, as ratios to the dense model:
masked, gathered, and gathered with a recorder. The ideal is what the decisions allow: in FLOPs for
prefill, in bytes of weights for decoding. ``arrived`` is the share of the ideal saving that came
out as time. Then what gates and adapters take, over the time of the dense model, and the most
memory that a process of its own holds while it runs, where memory that is free goes back at once:
else what loading and trying the runtime left free would count. All but the texts with padding, the
recorder and the memory is what ``skipviz.cost`` measures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

import skipviz
from skipviz.analysis.flops import realised_budget
from skipviz.analysis.timing.lost import IDEAL
from skipviz.analysis.timing.measured import PHASES, RUNS, Cost
from skipviz.experiments.timing.costing import texts_of
from skipviz.experiments.timing.handles import runtimes_of
from skipviz.experiments.timing.stopwatch import (
    TimedText,
    alternating,
    decode_step,
    prefill,
    turned,
)
from skipviz.progress import Meter, no_progress

PREFILL, BEFORE, DECODED = 512, 256, 128
"""``skipviz.cost`` decodes after half of a text."""
BATCH = (512, 480, 430, 390, 340, 280, 210, 128)
"""Lengths of the texts of a batch."""
GIVES_BACK = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "100000",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
}
"""Settings of the C library with which free memory goes back at once."""
TEXT = "".join(
    (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/architecture.md")
)


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


def padded_runs(handles: Mapping[str, skipviz.SkipModel], ids: Tensor, rounds: int) -> pl.DataFrame:
    """Return the times of alternating runs of the texts with padding, as ``Cost.runs``."""
    for handle in handles.values():
        padded(handle, ids)
    rows = [
        {
            "round": number,
            "phase": "prefill",
            "runtime": name,
            "seconds": padded(handles[name], ids),
        }
        for number in range(rounds)
        for name in turned(list(handles), number)
    ]
    return pl.DataFrame(rows, schema=RUNS)


def in_phases(model: skipviz.SkipModel, text: TimedText) -> dict[str, float]:
    """Return the seconds of a text by phase, in one run."""
    runs = alternating(
        {"gathered": model}, [text], rounds=1, clock=time.perf_counter,
        meter=Meter(1, no_progress, None),
    )  # fmt: skip
    return dict(runs.group_by("phase").agg(pl.col("seconds").sum()).iter_rows())


def recorded(
    model: skipviz.SkipModel, run: Callable[[], dict[str, float]], rounds: int
) -> dict[str, float]:
    """Return the time with a recorder over that without, by what ``run`` names."""
    ratios: list[dict[str, float]] = []
    for _ in range(rounds):
        with skipviz.record(model, statistics=False):
            watched = run()
        alone = run()
        ratios.append({name: watched[name] / alone[name] for name in alone})
    return {name: statistics.median(each[name] for each in ratios) for name in ratios[0]}


def ideal_decode_exits(model: skipviz.SkipModel, trace: skipviz.Trace) -> float:
    """Return the share of the dense model's bytes of weights that decoding with exits must read.

    Keys and values are made for all. Of exits, ``skipviz.cost`` does not know it.
    """

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
        question = size(*translator.parameters(), *exits.directions())
        needed += asked[:, number + 1 - first].mean() * question
    for rate, layer in zip(ran, layers[first:], strict=True):
        kept = (*layer.self_attn.k_proj.parameters(), *layer.self_attn.v_proj.parameters())
        needed -= (1 - rate) * (size(*layer.parameters()) - size(*kept))
    return needed / whole


def say_ratios(name: str, runs: pl.DataFrame, recording: float) -> float:
    """Print the ratios to the dense model; return the gathered runtime's."""
    rounds = runs.pivot(
        on="runtime", index="round", values="seconds", aggregate_function="mean"
    )  # fmt: skip
    ratios = rounds["gathered"] / rounds["dense"]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    masked = float(np.median(rounds["masked"] / rounds["dense"]))
    print(
        f"  {name}: gathered {middle:.3f} of dense (middle half {low:.3f} to {high:.3f}); "
        f"masked {masked:.3f}; recording on top {recording:.3f}",
        flush=True,
    )
    return float(middle)


def say_phases(
    masked: skipviz.SkipModel, trace: skipviz.Trace, found: Cost, recording: Mapping[str, float]
) -> None:
    """Print what was measured of one text."""
    for phase in PHASES:
        middle = say_ratios(phase, found.runs.filter(phase=phase), recording[phase])
        saved = found.savings.filter(phase=phase, runtime="gathered")[IDEAL[phase]].item()
        if saved is None and hasattr(masked.model, "exits"):
            saved = 1 - ideal_decode_exits(masked, trace)
        print(f"    ideal {1 - saved:.3f}, arrived {(1 - middle) / saved:.0%}")
        gates = found.parts.filter(pl.col("part").is_in(("gates", "adapters")))
        own = gates.filter(phase=phase, runtime="gathered")
        if own.height:
            print(f"    gates and adapters {own['share'].sum():.1%} of dense")


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
        prefill(model.model, ids, cache=False)
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
        prefill(model.model, ids, cache=False)
        cache = prefill(model.model, ids[:, :BEFORE], cache=True).past_key_values
        for place in range(BEFORE, BEFORE + DECODED):
            cache = decode_step(model.model, ids[:, place : place + 1], cache)
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
    ids = first.tokenizer(TEXT, return_tensors="pt").input_ids[:, :PREFILL]
    print(f"{given.model}, {given.dtype}, {torch.get_num_threads()} threads, medians of "
          f"{given.rounds} alternating runs")  # fmt: skip
    for budget in given.budget or sorted(first.settings.budgets, reverse=True):
        masked = skipviz.at_budget(first, budget)
        trace = skipviz.trace(masked, ids[0].tolist())
        print(f"budget {budget:g}, realised {realised_budget(trace):.3f}", flush=True)
        found = skipviz.cost(masked, trace, rounds=given.rounds, decoded=DECODED)
        handles, _ = runtimes_of(masked)
        fast = handles["gathered"]
        (text,) = texts_of(masked, trace, decoded=DECODED)
        say_phases(
            masked, trace, found,
            recorded(fast, lambda fast=fast, text=text: in_phases(fast, text), given.rounds),
        )  # fmt: skip
        with torch.inference_mode():
            runs = padded_runs(handles, ids, given.rounds)
            on_top = recorded(
                fast, lambda fast=fast: {"padded": padded(fast, ids)}, given.rounds
            )  # fmt: skip
        say_ratios("padded", runs, on_top["padded"])
    del first, masked, handles, fast
    os.environ.update(GIVES_BACK)  # for processes that start from here on
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        held = [pool.apply(peak, (given.model, given.dtype, each)) for each in (None, budget)]
    print(f"most memory: gathered {held[1] / held[0]:.3f} of dense")


if __name__ == "__main__":
    main()
