"""What recording costs: a forward with it over the same forward without.

``python benchmarks/recording.py [MODEL]``. 512 tokens, float32; medians of alternating runs, since
the speed of a machine drifts. Bars: decisions at most 1.05, with token statistics at most 1.10.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import skipviz

TOKENS = 512
ROUNDS = 11
TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8") * 10


def seconds(run: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print the ratios."""
    model = skipviz.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2-gated")
    ids = model.tokenizer(TEXT, return_tensors="pt").input_ids[:, :TOKENS]

    def bare() -> None:
        model.model(ids, use_cache=False)

    def decisions() -> None:
        with skipviz.record(model, statistics=False):
            model.model(ids, use_cache=False)

    def figures() -> None:
        with skipviz.record(model):
            model.model(ids, use_cache=False)

    kinds = {"decisions": (decisions, 1.05), "with token statistics": (figures, 1.10)}
    with torch.inference_mode():
        for run in (bare, decisions, figures):
            run()
        for name, (recorded, bar) in kinds.items():
            ratios = []
            for _ in range(ROUNDS):
                without = seconds(bare)
                ratios.append(seconds(recorded) / without)
            print(
                f"{name}: {statistics.median(ratios):.3f} of a bare forward "
                f"(pairs {min(ratios):.3f} to {max(ratios):.3f}; bar {bar:.2f})"
            )


if __name__ == "__main__":
    main()
