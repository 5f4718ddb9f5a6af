"""Workers of a Ray cluster against this process, on the same cores.

``python benchmarks/corpus_ray.py [--model MODEL] [--rounds N] [--workers N]``. Both engines trace
the same texts in turn: this process with as many threads as there are workers with one each.
Compared are tokens per second from the first part that is done to the last, so that loading the
model, which happens once, counts for neither (bar: 0.85). Printed besides is how long the start of
Ray takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import skipviz

TEXTS = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
PART_CHARACTERS = 1_000


def write_texts(path: Path, characters: int) -> None:
    """Write paragraphs of the documentation with so many characters together."""
    written = 0
    with path.open("w") as file:
        for text in (part for doc in TEXTS for part in doc.read_text("utf-8").split("\n\n")):
            if written < characters and text.strip():
                file.write(json.dumps({"text": text}) + "\n")
                written += len(text)


def measured(engine: str, model: str, source: Path, out: Path, workers: int) -> tuple[float, float]:
    """Return tokens per second once parts come, and the seconds until the first does."""
    came: list[tuple[float, int]] = []

    def report(progress: skipviz.CorpusProgress) -> None:
        if not came or progress.tokens > came[-1][1]:
            came.append((time.monotonic(), progress.tokens))

    began = time.monotonic()
    skipviz.trace_corpus(
        lambda: skipviz.load(model),
        source,
        out=out,
        engine=engine,
        part_characters=PART_CHARACTERS,
        workers=skipviz.Workers(count=workers),
        report=report,
    )
    known = [(when, tokens) for when, tokens in came if tokens]
    (first, before), (last, after) = known[0], known[-1]
    return (after - before) / (last - first), first - began


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-gated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--characters", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.workers)
    ratios, starts = [], []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "texts.jsonl"
        write_texts(source, options.characters)
        for number in range(options.rounds):
            rates = {}
            for engine in ("local", "ray"):
                out = Path(folder) / f"{engine}-{number}"
                rate, start = measured(engine, options.model, source, out, options.workers)
                rates[engine] = rate
                starts += [start] if engine == "ray" else []
            ratios.append(rates["ray"] / rates["local"])
            print(f"local {rates['local']:,.0f}, Ray {rates['ray']:,.0f} tokens/s", flush=True)
    print(
        f"Ray {statistics.median(ratios):.2f} of local (rounds {min(ratios):.2f} to "
        f"{max(ratios):.2f}; bar 0.85); its first part came after {statistics.median(starts):.0f} s"
    )


if __name__ == "__main__":
    main()
