"""Whether ``torch.compile`` helps: prefill and decoding, compiled over not compiled.

``PYTHONPATH=. python benchmarks/compiled.py [MODEL] [--budget 0.65] [--rounds 5]``: prefill of 512
tokens with the logits of the last one, of the dense, the masked and the gathered model. What
decides from data ends a compiled graph, so the gathered one is compiled in parts. Medians of
alternating runs as ratios to the same model as it is, the seconds until the first result, and
whether logits agree.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import skipviz
from benchmarks.runtime import PREFILL, TEXT


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2-gated")
    parser.add_argument("--budget", type=float, default=0.65)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    masked = skipviz.load(given.model, budget=given.budget)
    if masked.settings is None:
        raise SystemExit(f"{given.model} has no gates.")
    ids = masked.tokenizer(TEXT, return_tensors="pt").input_ids[:, :PREFILL]
    handles = {
        "dense": skipviz.load(masked.settings.backbone),
        "masked": masked,
        "gathered": skipviz.with_runtime(masked, "gathered"),
    }
    for name, handle in handles.items():
        print(f"{name}: {compared(handle.model, ids, given.rounds)}", flush=True)


def compared(model: torch.nn.Module, ids: torch.Tensor, rounds: int) -> str:
    """Return how a compiled model compares with the same as it is."""
    torch._dynamo.reset()
    compiled = torch.compile(model)
    took: dict[str, list[float]] = {"as it is": [], "compiled": []}
    ways = {"as it is": model, "compiled": compiled}
    with torch.inference_mode():
        began = time.perf_counter()
        first = compiled(ids, logits_to_keep=1, use_cache=False).logits
        seconds = time.perf_counter() - began
        apart = float((first - model(ids, logits_to_keep=1, use_cache=False).logits).abs().max())
        for _ in range(rounds):
            for way, run in ways.items():
                began = time.perf_counter()
                run(ids, logits_to_keep=1, use_cache=False)
                took[way].append(time.perf_counter() - began)
    ratio = statistics.median(
        after / before for before, after in zip(took["as it is"], took["compiled"], strict=True)
    )
    far = f"logits {apart:.1g} apart; first after {seconds:.0f} s"
    return f"compiled {ratio:.3f} of as it is; {far}"


if __name__ == "__main__":
    main()
