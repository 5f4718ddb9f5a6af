"""Corpora of traces that were made up, so that every answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import skipviz
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.reading.dataset import CorpusDataset
from skipviz.corpus.rows import parquet_bytes, token_table
from skipviz.corpus.work import PartResult
from skipviz.corpus.writer import CorpusWriter
from tests.synthetic import make_trace


def write_corpus(
    folder: Path,
    parts: Sequence[skipviz.Trace],
    *,
    columns: Sequence[dict[str, Any]] = (),
    finished: bool = True,
) -> CorpusDataset:
    """Write traces as a corpus, each as a part and each of its sequences as a document."""
    there = DatasetFolder(folder)
    with there.held():
        writer = CorpusWriter(there)
        first = 0
        for number, traced in enumerate(parts):
            sequence = traced.tokens["sequence"].to_numpy()
            sizes = np.bincount(sequence).tolist()
            name = f"{number:06}-{'0' * 16}"
            table = token_table(traced, sequence + first)
            staged = there.stage(
                f"tokens/{name}.parquet", parquet_bytes(table), rows=table.num_rows
            )
            rows = tuple(
                {
                    "document": first + place,
                    "source": f"text {first + place}",
                    "sha256": f"{first + place:064}",
                    "characters": 100,
                    "tokens": size,
                    "error": None,
                    "columns": json.dumps(columns[first + place] if columns else {}),
                }
                for place, size in enumerate(sizes)
            )
            about = {
                "format": 1,
                "run": traced.run.row(0, named=True),
                "sites": traced.sites.to_dicts(),
                "part_characters": 1000,
                "bos": None,
                "analyses": [],
            }
            writer.take(
                PartResult(
                    number=number,
                    name=name,
                    share=None,
                    about=about,
                    staged=(staged,),
                    documents=rows,
                )
            )
            first += len(sizes)
        writer._parts = len(parts)
        if finished:
            writer.finish()
    return skipviz.open_corpus(folder)


def made_parts(count: int = 3, *, sequences: int = 4, tokens: int = 120) -> list[skipviz.Trace]:
    """Parts of several documents each, of one model."""
    return [
        make_trace(seed=seed, tokens=tokens, sequences=sequences, gated=(1, 2))
        for seed in range(count)
    ]


def tokens_of(parts: Sequence[skipviz.Trace]) -> pl.DataFrame:
    """All tokens with their document and what ran, as a slow reader has them."""
    frames, first = [], 0
    for traced in parts:
        ran = traced.matrix("exec_count") > 0
        frames.append(
            traced.tokens.with_columns(
                document=pl.col("sequence") + first,
                **{
                    label: pl.Series(ran[:, place])
                    for place, label in enumerate(traced.sites["label"])
                },
            )
        )
        first += int(traced.tokens["sequence"].max()) + 1
    return pl.concat(frames)


@cache
def two_clusters() -> skipviz.Clusters:
    """Clusters of one part."""
    return skipviz.cluster(made_parts(1)[0], clusters=2)
