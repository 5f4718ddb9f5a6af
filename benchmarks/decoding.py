"""Decoding of 128 tokens after 256 under each runtime, in turn for every single token.

``PYTHONPATH=. python benchmarks/decoding.py [MODEL] [--budget B] [--rounds 7]``: the time over that
of the dense model. ``benchmarks/runtime.py`` takes turns by whole texts, as ``skipviz.cost``
does; where a machine is quicker in one second than in the next, turns by tokens tell runtimes apart
with fewer rounds. Each runtime has a cache of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import skipviz
from benchmarks.runtime import BEFORE, DECODED, PREFILL, TEXT
from skipviz.experiments.timing.handles import runtimes_of
from skipviz.experiments.timing.stopwatch import decode_step, prefill, turned

WARM = 4
"""Tokens at the start of each round that are not counted."""


def seconds_by_runtime(models: Mapping[str, Any], ids: Tensor) -> dict[str, float]:
    """Return the seconds that each runtime took for all tokens that count."""
    before = ids[:, :BEFORE]
    caches = {
        name: prefill(model, before, cache=True).past_key_values for name, model in models.items()
    }
    taken = dict.fromkeys(models, 0.0)
    for number in range(DECODED):
        given = ids[:, BEFORE + number : BEFORE + number + 1]
        for name in turned(list(models), number):
            began = time.perf_counter()
            caches[name] = decode_step(models[name], given, caches[name])
            taken[name] += (time.perf_counter() - began) * (number >= WARM)
    return taken


def main() -> None:
    """Print the medians of the ratios to the dense model, and how far rounds lie apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-gated")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=0.65)
    given = parser.parse_args()
    handle = skipviz.at_budget(skipviz.load(given.model, dtype=given.dtype), given.budget)
    handles, missing = runtimes_of(handle)
    for sentence in missing.values():
        print(sentence)
    models = {name: each.model for name, each in handles.items()}
    ids = handle.tokenizer(TEXT, return_tensors="pt").input_ids[:, :PREFILL]
    with torch.inference_mode():
        rounds = [seconds_by_runtime(models, ids) for _ in range(given.rounds)]
    print(f"{given.model}, {given.dtype}, {torch.get_num_threads()} threads, budget "
          f"{given.budget:g}, {given.rounds} rounds")  # fmt: skip
    for name in models:
        if name != "dense":
            ratios = sorted(each[name] / each["dense"] for each in rounds)
            print(f"  {name}: {statistics.median(ratios):.3f} of dense "
                  f"({ratios[0]:.3f} to {ratios[-1]:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
