"""How long an audit of every decision takes, in bare forwards of the same text.

Every cell of a text of 256 tokens at horizon 1, against one float32 forward; runs alternate. The
floor is what the flips must compute: the layers above each, and the head.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import skipviz
from skipviz.corpora.held_out import BROWN_REPORTING, held_out
from skipviz.experiments.decision_audit import audit
from skipviz.families.llama import UnitFlops, decoder_layers
from skipviz.text.spans import encode


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def floor(model: skipviz.SkipModel, trace: skipviz.Trace) -> float:
    """FLOPs of all flips over those of one dense forward, if skipped units cost nothing."""
    flops = UnitFlops.from_config(model.model.config)
    length, layers = len(trace), len(decoder_layers(model.model))
    attention = flops.attn_fixed + flops.kv + flops.attn_per_key * (length + 1) / 2
    ran = trace.matrix("exec_count").mean(axis=0)
    cost = {"attn": attention, "mlp": flops.mlp}
    rest = {(layer, unit): cost[unit] for layer in range(layers) for unit in ("attn", "mlp")}
    order = list(rest)
    sites = trace.sites.select("layer", "unit").rows()
    rest |= {site: cost[site[1]] * share for site, share in zip(sites, ran, strict=True)}
    spent = sum(
        flops.head + sum(rest[above] for above in order[order.index(site) + 1 :]) for site in sites
    )
    return spent / (layers * (attention + flops.mlp) + flops.head)


def main() -> None:
    """Print medians of alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4096)
    options = parser.parse_args()
    model = skipviz.load("smollm2-gated")
    document = held_out(BROWN_REPORTING[:1], chars=8 * options.tokens)[0]
    ids = encode(model.tokenizer, document.text).ids[: options.tokens]
    text = model.tokenizer.decode(ids)
    trace = skipviz.trace(model, text)
    rows = torch.tensor([encode(model.tokenizer, text).ids])

    def forward() -> None:
        with torch.inference_mode():
            model.model(rows, use_cache=False)

    forward()
    pairs = [
        (timed(forward), timed(lambda: audit(model, trace, rows=options.rows)), timed(forward))
        for _ in range(options.runs)
    ]
    ratios = [both / min(before, after) for before, both, after in pairs]
    cells = (len(trace) - 1) * trace.sites.height
    print(f"{len(trace)} tokens, {trace.sites.height} sites, {cells:,} flips")
    print(f"bare forward, median: {statistics.median(p[0] for p in pairs):.3f} s")
    print(f"audit, median: {statistics.median(p[1] for p in pairs):.2f} s")
    print(f"ratio, median: {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})")
    print(f"floor by FLOPs: {floor(model, trace):.1f}; naive: {cells:,}")


if __name__ == "__main__":
    main()
