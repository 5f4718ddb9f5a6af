"""What a corpus costs: tracing to files over a bare batched forward of the same batches.

``python benchmarks/corpus.py [--model MODEL] [--tokens N] [--rounds N]``. A bare forward and a run
of the corpus take turns; printed are the throughput of the run over that of the forward (bar: 0.90)
and bytes per decision on disk (bar: 2).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import torch

import skipviz
from skipviz.recording.tracing import BATCH_TOKENS
from skipviz.schema import TOKENS

TEXTS = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))


def paragraphs() -> Iterator[str]:
    """Yield paragraphs of the documentation."""
    for path in TEXTS:
        yield from (part for part in path.read_text("utf-8").split("\n\n") if part.strip())


def batches(rows: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield ids and mask of batches of like length, as a trace makes them."""
    held: list[list[int]] = []
    for row in sorted(rows, key=len):
        if held and len(row) * (len(held) + 1) > BATCH_TOKENS:
            yield padded(held)
            held = []
        held.append(row)
    yield padded(held)


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return rows as one tensor, and which of it is no padding."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, None if bool(mask.all()) else mask


def bytes_per_decision(folder: Path) -> float:
    """Return what scores and decisions take on disk, with what thresholds take."""
    about = json.loads((folder / "manifest.json").read_text())
    own = TOKENS.keys() | {"document"}
    size = 0
    for path in folder.glob("tokens/*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        columns = [group.column(place) for place in range(group.num_columns)]
        size += sum(c.total_compressed_size for c in columns if c.path_in_schema not in own)
    return size / about["decisions"]


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-gated")
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = skipviz.load(options.model)
    texts: list[str] = []
    rows: list[list[int]] = []
    for text in paragraphs():
        if sum(map(len, rows)) >= options.tokens:
            break
        texts.append(text)
        rows.append(model.tokenizer(text)["input_ids"][: model.context])
    tokens = sum(map(len, rows))

    def bare() -> None:
        with torch.inference_mode():
            for ids, mask in batches(rows):
                model.model(ids, attention_mask=mask, use_cache=False)

    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "texts.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        skipviz.trace_corpus(model, source, out=Path(folder) / "first")
        for number in range(options.rounds):
            began = time.perf_counter()
            bare()
            alone = time.perf_counter() - began
            began = time.perf_counter()
            skipviz.trace_corpus(model, source, out=Path(folder) / f"{number}")
            whole = time.perf_counter() - began
            ratios.append(alone / whole)
        size = bytes_per_decision(Path(folder) / "first")
    print(f"{len(texts)} documents, {tokens:,} tokens, {tokens / alone:,.0f} tokens/s bare")
    print(
        f"throughput {statistics.median(ratios):.3f} of a bare batched forward "
        f"(rounds {min(ratios):.3f} to {max(ratios):.3f}; bar 0.90)"
    )
    print(f"{size:.2f} bytes per decision (bar 2)")


if __name__ == "__main__":
    main()
