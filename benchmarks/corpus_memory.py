"""A million tokens: rows, checksums and a second run agree, and memory does not grow with them.

``PYTHONPATH=. python benchmarks/corpus_memory.py [--tokens N]``. The tiny random model of the tests
traces a tenth of the tokens, and then all, each in a process of its own; printed are its peak
memory (bar: at most 1.20 times as much) and what the second run of the same command did.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch

import skipviz
from skipviz.corpus.verifying import damaged_files
from tests import tiny
from tests.corpus.loading import tiny_gated

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps. "
PART_CHARACTERS = 50_000


def write_texts(path: Path, tokens: int) -> int:
    """Write documents with at least so many tokens together, and return how many those are."""
    tokenizer, written, number = tiny.tokenizer(), 0, 0
    with path.open("w") as file:
        while written < tokens:
            text = f"{number}. " + TEXT * (1 + number * 7 % 11)
            file.write(json.dumps({"text": text, "number": number}) + "\n")
            written += len(tokenizer(text)["input_ids"])
            number += 1
    return written


def run(source: Path, out: Path, answer: Any) -> None:
    """Trace the corpus, and say what memory it took."""
    torch.set_num_threads(1)
    began, reports = time.monotonic(), []
    skipviz.trace_corpus(
        tiny_gated, source, out=out, part_characters=PART_CHARACTERS, report=reports.append
    )
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.put((peak, seconds, reports[-1].documents if reports else 0))


def measured(source: Path, out: Path) -> tuple[float, float, int]:
    """Return peak memory in MiB, seconds, and documents traced, of a run in its own process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=run, args=(source, out, answer))
    process.start()
    found: tuple[float, float, int] = answer.get()
    process.join()
    return found


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    options = parser.parse_args()
    peaks = []
    good = True
    with tempfile.TemporaryDirectory() as place:
        for size in (options.tokens // 10, options.tokens):
            source, out = Path(place) / f"{size}.jsonl", Path(place) / f"{size}"
            expected = write_texts(source, size)
            peak, seconds, _ = measured(source, out)
            again = measured(source, out)
            peaks.append(peak)
            rows = pl.scan_parquet(out / "tokens" / "*.parquet").select(pl.len()).collect().item()
            verified = damaged_files(out)
            good &= rows == expected and not verified.damaged and again[2] == 0
            print(
                f"{rows:,} rows of {expected:,} tokens in {seconds:,.0f} s, peak {peak:,.0f} MiB; "
                f"{len(verified.damaged)} of {verified.files} files damaged; a second run traced "
                f"{again[2]} documents in {again[1]:.1f} s",
                flush=True,
            )
    ratio = peaks[1] / peaks[0]
    print(f"Peak memory {ratio:.2f} times that of a tenth of the tokens (bar 1.20).")
    raise SystemExit(0 if good and ratio <= 1.2 else 1)


if __name__ == "__main__":
    main()
