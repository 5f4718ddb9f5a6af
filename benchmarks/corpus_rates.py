"""How long a question over a whole corpus takes: execution rates by site and class of token.

``python benchmarks/corpus_rates.py [--decisions 100000000] [--rounds 3] [--folder FOLDER]``. A
dataset with the real columns is written, documents of 500 tokens, 60 sites, words as often as in a
text; FOLDER keeps it, and is used again where it is there. Then ``corpus_rates(by="kind")`` of
skipviz, which finds the class of each token and makes intervals over documents, and DuckDB on the
same files, which is given the classes: once for the same sums (by document and class, then by
class), once for the rates alone. Each runs in processes of its own with two threads, in turn;
printed are medians of rounds after a first one, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from skipviz.corpus.done import done_parts
from skipviz.corpus.folder import DatasetFolder
from skipviz.corpus.format import FORMAT, METADATA_KEY, done_schema, score_column, token_schema
from skipviz.corpus.rows import parquet_bytes
from skipviz.schema import RUN, Site, site_frame

SITES, PART_TOKENS, DOCUMENT_TOKENS = 60, 45_000, 500
WORDS = 20_000
ENGINES = ("skipviz", "DuckDB, the same sums", "DuckDB, rates alone")


def sites() -> list[Site]:
    return [
        Site(
            layer=place // 2, unit=unit, rule="gt", polarity=1, skip_path="adapter", kv="computed",
            computed_anyway=True, scope="token",
        )
        for place in range(SITES)
        for unit in (("attn", "mlp")[place % 2],)
    ]  # fmt: skip


def vocabulary() -> list[str]:
    """Return as many different texts as a tokenizer has words, some of every class."""
    common = [",", ".", " the", " of", " and", "\n", " to", " in", " a", "1", " is", '"', " $", "-"]
    return common + [f" word{number:05}" for number in range(WORDS - len(common))]


def write(folder: Path, decisions: int) -> None:
    """Write a dataset part by part, as the writer of a corpus leaves it."""
    rng = np.random.default_rng(0)
    labels = [site.label for site in sites()]
    schema = token_schema(labels)
    texts = pa.array(vocabulary())
    chance = 1 / np.arange(1, WORDS + 1)
    chance /= chance.sum()
    same = {
        name: pa.nulls(PART_TOKENS, schema.field(name).type)
        for name in ("char_start", "char_end", "exit_depth", "p_execute", "exec_count")
    }
    threshold = np.full(PART_TOKENS * SITES, -0.8, dtype=np.float32)
    place = np.arange(PART_TOKENS)
    documents = PART_TOKENS // DOCUMENT_TOKENS
    there = DatasetFolder(folder)
    run = dict.fromkeys(RUN) | {"model": "made up", "policy": "learned", "dtype": "float32"}
    about = {
        "format": FORMAT, "run": run, "sites": site_frame(sites()).to_dicts(),
        "part_characters": 200_000, "bos": None, "analyses": [],
    }  # fmt: skip
    there.write_json("corpus.json", about)
    for number in range(-(-decisions // (PART_TOKENS * SITES))):
        score = rng.standard_normal((SITES, PART_TOKENS), dtype=np.float32)
        ran = score > -0.8
        loss = rng.gamma(1.2, 2.5, PART_TOKENS).astype(np.float32)
        ids = rng.choice(WORDS, PART_TOKENS, p=chance).astype(np.int32)
        columns = same | {
            "document": pa.array(place // DOCUMENT_TOKENS + number * documents),
            "position": pa.array((place % DOCUMENT_TOKENS).astype(np.int32)),
            "span": pa.array((place % DOCUMENT_TOKENS).astype(np.int32)),
            "context": pa.array((place % DOCUMENT_TOKENS + 1).astype(np.int32)),
            "token_id": pa.array(ids),
            "text": texts.take(pa.array(ids)),
            "phase": pa.repeat("prefill", PART_TOKENS),
            "surprisal": pa.array(loss),
            "nll": pa.array(loss),
            "entropy": pa.array(loss),
            "layers_used": pa.array((ran.sum(axis=0) / 2).astype(np.float32)),
            "threshold": pa.FixedSizeListArray.from_arrays(
                pa.array(threshold), type=schema.field("threshold").type
            ),
        }
        for site, label in enumerate(labels):
            columns |= {
                label: pa.array(ran[site]),
                score_column(label): pa.array(score[site].astype(np.float16)),
            }
        table = pa.table({field.name: columns[field.name] for field in schema}, schema=schema)
        name = f"{number:06}-{number:016x}"
        staged = there.stage(f"tokens/{name}.parquet", parquet_bytes(table), rows=table.num_rows)
        there.commit(staged)
        rows = [
            {
                "document": number * documents + own, "source": f"{number}:{own}", "sha256": None,
                "characters": 2000, "tokens": DOCUMENT_TOKENS, "error": None, "columns": "{}",
            }
            for own in range(documents)
        ]  # fmt: skip
        said = json.dumps({"format": FORMAT, "files": [staged.file.listed()]})
        done = pa.Table.from_pylist(rows, schema=done_schema())
        with there.staging(f"done/{name}.parquet") as file:
            pq.write_table(done.replace_schema_metadata({METADATA_KEY: said}), file)
        there.commit(file.staged(len(rows)))


def by_skipviz(folder: Path) -> pl.DataFrame:
    from skipviz.corpus.questions.means import corpus_rates
    from skipviz.corpus.reading.dataset import open_corpus

    return corpus_rates(open_corpus(folder), by="kind")


def by_duckdb(folder: Path, *, sums: bool) -> list[tuple[object, ...]]:
    import duckdb

    from skipviz.analysis.tokens.classes import kinds_of_texts

    words = pl.Series("text", vocabulary())
    database = duckdb.connect(config={"threads": 2, "memory_limit": "2GB"})
    database.register(
        "words", pl.DataFrame({"text": words, "kind": kinds_of_texts(words)}).to_arrow()
    )
    labels = [site.label for site in sites()]
    files = f"'{folder}/tokens/*.parquet'"
    if not sums:
        each = ", ".join(f'avg("{label}"::int)' for label in labels)
        query = f"select kind, {each} from {files} join words using (text) group by kind"
        return database.execute(query).fetchall()
    inner = ", ".join(f'sum("{label}"::int) as "{label}"' for label in labels)
    outer = ", ".join(
        f'sum("{label}"), sum("{label}"::double ^ 2), sum("{label}"::double * n)'
        for label in labels
    )
    by_document = (
        f"select document, kind, count(*) as n, {inner} from {files} join words using (text) "
        "group by document, kind"
    )
    query = (
        f"select kind, count(*), sum(n), sum(n::double ^ 2), {outer} from ({by_document}) "
        "group by kind"
    )
    return database.execute(query).fetchall()


RUNS: dict[str, Callable[[Path], object]] = {
    ENGINES[0]: by_skipviz,
    ENGINES[1]: lambda folder: by_duckdb(folder, sums=True),
    ENGINES[2]: lambda folder: by_duckdb(folder, sums=False),
}


def measure(engine: str, folder: Path, rounds: int) -> None:
    """Print how long each round took, and the peak of memory in bytes."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        RUNS[engine](folder)
        taken.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": taken[1:], "peak": peak}))


def main() -> None:
    """Write the dataset, measure each engine, and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--decisions", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only-write", action="store_true")
    parser.add_argument("--measure", choices=ENGINES)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.folder, given.rounds)
        return
    folder = given.folder or Path("build") / f"corpus-rates-{os.getpid()}"
    if not (folder / "corpus.json").exists():
        write(folder, given.decisions)
    if given.only_write:
        return
    tokens = len(done_parts(DatasetFolder(folder))) * PART_TOKENS
    print(
        f"{tokens * SITES:,} decisions, {tokens:,} tokens, {tokens // DOCUMENT_TOKENS:,} documents"
    )
    environment = os.environ | {"POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "2"}
    found: dict[str, list[float]] = {}
    for engine in ENGINES:
        words = [sys.executable, __file__, "--folder", str(folder), "--measure", engine]
        said = subprocess.run(
            [*words, "--rounds", str(given.rounds)],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        told = json.loads(said.stdout)
        found[engine] = told["seconds"]
        ratio = statistics.median(found[engine]) / statistics.median(found[ENGINES[0]])
        print(
            f"{engine}: {statistics.median(found[engine]):.2f} s, {ratio:.2f} times skipviz, "
            f"peak {told['peak'] / 2**30:.2f} GiB"
        )
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
