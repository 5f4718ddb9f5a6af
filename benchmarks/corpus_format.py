"""How decisions are best kept on disk: a column per site, or arrays; measured on 100 million.

``python benchmarks/corpus_format.py [FOLDER]``. Scores are a random walk per site in float16,
decisions what a threshold makes of them. The same tokens are written as a Boolean column per site,
as a UInt8 column per site, and as one array column. Printed are bytes per decision and the time of
the share executed by site and token class, median of alternating rounds, by Polars and DuckDB.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

TOKENS, SITES, PARTS = 98_304, 60, 17
ROUNDS = 5
NAMES = [f"L{site // 2}.{'mlp' if site % 2 else 'attn'}" for site in range(SITES)]


def parts() -> Iterator[tuple[pa.Array, np.ndarray, np.ndarray]]:
    """Yield token classes, scores and decisions of each part."""
    rng = np.random.default_rng(0)
    classes = np.array(["word", "number", "punctuation", "space"])
    for _ in range(PARTS):
        walk = rng.normal(size=(TOKENS, SITES)).astype(np.float32)
        walk[1:] += 0.6 * walk[:-1]
        drawn = classes[rng.choice(4, TOKENS, p=(0.7, 0.05, 0.15, 0.1))]
        yield pa.array(drawn), walk.astype(np.float16), walk > -0.8


def write(folder: Path) -> None:
    """Write every part in every layout."""
    for name in ("bits", "counts", "arrays"):
        (folder / name).mkdir(parents=True)
    for number, (classes, score, ran) in enumerate(parts()):
        counts = ran.astype(np.uint8)
        scores = {f"{name}.score": pa.array(score[:, site]) for site, name in enumerate(NAMES)}
        columns = {
            "bits": {name: pa.array(ran[:, site]) for site, name in enumerate(NAMES)} | scores,
            "counts": {name: pa.array(counts[:, site]) for site, name in enumerate(NAMES)} | scores,
            "arrays": {
                "exec_count": pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), SITES),
                "score": pa.FixedSizeListArray.from_arrays(pa.array(score.ravel()), SITES),
            },
        }
        for layout, found in columns.items():
            words = [
                "class",
                *({"bits": [], "arrays": ["exec_count.list.element"]}.get(layout, NAMES)),
            ]
            pq.write_table(
                pa.table({"class": classes, **found}),
                folder / layout / f"{number:06}.parquet",
                compression="zstd",
                use_dictionary=words,
            )


def per_decision(folder: Path) -> tuple[float, float]:
    """Return bytes of score and of decision, each per decision."""
    size = {"score": 0, "decision": 0}
    for path in folder.glob("*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema != "class":
                kind = "score" if "score" in column.path_in_schema else "decision"
                size[kind] += column.total_compressed_size
    cells = TOKENS * SITES * PARTS
    return size["score"] / cells, size["decision"] / cells


def by_polars(folder: Path) -> pl.DataFrame:
    """Return the share executed by site and class."""
    lazy = pl.scan_parquet(folder / "*.parquet")
    if folder.name == "arrays":
        means = [
            (pl.col("exec_count").arr.get(site) > 0).mean().alias(name)
            for site, name in enumerate(NAMES)
        ]
    elif folder.name == "counts":
        means = [(pl.col(name) > 0).mean() for name in NAMES]
    else:
        means = [pl.col(name).mean() for name in NAMES]
    return lazy.group_by("class").agg(means).collect(engine="streaming")


def by_duckdb(folder: Path) -> object:
    """Return the same from DuckDB."""
    if folder.name == "arrays":
        means = [f"avg((exec_count[{site + 1}] > 0)::int)" for site in range(SITES)]
    elif folder.name == "counts":
        means = [f'avg(("{name}" > 0)::int)' for name in NAMES]
    else:
        means = [f'avg("{name}"::int)' for name in NAMES]
    query = f"select class, {', '.join(means)} from '{folder}/*.parquet' group by class"
    return duckdb.sql(query).fetchall()


def main() -> None:
    """Print a line for each layout."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    if not (folder / "bits").exists():
        write(folder)
    engines: dict[str, Callable[[Path], object]] = {"Polars": by_polars, "DuckDB": by_duckdb}
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for layout in ("bits", "counts", "arrays"):
            for engine, run in engines.items():
                began = time.perf_counter()
                run(folder / layout)
                taken.setdefault((layout, engine), []).append(time.perf_counter() - began)
    print(f"{TOKENS * SITES * PARTS:,} decisions, {SITES} sites, {PARTS} files")
    for layout in ("bits", "counts", "arrays"):
        score, decision = per_decision(folder / layout)
        times = ", ".join(
            f"{engine} {statistics.median(taken[layout, engine]):.2f} s" for engine in engines
        )
        print(f"{layout}: {score:.2f} + {decision:.2f} bytes per decision; {times}")
    if len(sys.argv) == 1:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
