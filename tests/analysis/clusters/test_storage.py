from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from skipviz.analysis.clusters.clustered import Clusters
from skipviz.analysis.clusters.clustering import cluster
from skipviz.analysis.clusters.storage import METADATA_KEY, TABLES, read_tables, write_tables
from skipviz.errors import StoreError
from skipviz.plots import cluster_criterion, cluster_profiles, cluster_text
from tests.damage import damaged_bytes, many_times, odd_cells
from tests.profiles import planted, trace_of

FAULTS = 150
Change = Callable[[dict[str, pl.DataFrame]], dict[str, pl.DataFrame]]


def change(table: str, *, drop: str = "", **columns: pl.Expr) -> Change:
    """Change columns of a table."""
    return lambda tables: {
        **tables, table: tables[table].drop([drop] if drop else []).with_columns(**columns)
    }  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    found = cluster(trace_of(planted(0)[0]), clusters=4)
    return {name: getattr(found, name) for name in TABLES}


def written(tables: dict[str, pl.DataFrame]) -> io.BytesIO:
    buffer = io.BytesIO()
    write_tables(tables, buffer)
    return buffer


def test_the_columns_are_those_that_clusters_have(tables: dict[str, pl.DataFrame]) -> None:
    for name, table in tables.items():
        assert table.columns == list(TABLES[name])
    read = read_tables(written(tables))
    assert all(read[name].equals(tables[name]) for name in TABLES)


LOST: dict[str, Change] = {
    "no table references": lambda t: {n: each for n, each in t.items() if n != "references"},
    "None where column text of table tokens should be String": change("tokens", drop="text"),
    "String where column p of table run should be Float64": change("run", p=pl.lit("0.1")),
    "of 24 sites and 3 sites, which do not go together": lambda t: {
        **t, "sites": t["sites"].head(3)
    },
    "0 reference profiles": lambda t: {**t, "references": t["references"].clear()},
    "on='colour', which is not one of executed, score": change("run", on=pl.lit("colour")),
    "on='score', method='kmeans' and metric='hamming' do not go": change("run", on=pl.lit("score")),
    "metric='jaccard' do not go together": change("run", metric=pl.lit("jaccard")),
    "run.p is 1.5": change("run", p=pl.lit(1.5)),
    "run.p is nan": change("run", p=pl.lit(float("nan"))),
    "run.p has no value": change("run", p=pl.lit(None, dtype=pl.Float64)),
    "sites.spread is 0.0": change("sites", spread=pl.lit(0.0)),
    "sites.label is 'L99.mlp'": change("sites", label=pl.lit("L99.mlp")),
    "sites.layer is -1": change("sites", layer=pl.lit(-1, dtype=pl.Int64)),
    "tokens.cluster is 9": change("tokens", cluster=pl.lit(9, dtype=pl.Int64)),
    "tokens.distance is -1.0": change("tokens", distance=pl.lit(-1.0)),
    "tokens.token must be numbered": lambda t: {**t, "tokens": t["tokens"].reverse()},
    "profiles must have one row": lambda t: {**t, "profiles": t["profiles"].head(30)},
    "profiles.rate is 7.0": change("profiles", rate=pl.lit(7.0)),
    "criterion.silhouette is 2.0": change("criterion", silhouette=pl.lit(2.0)),
    "must number clusters from 0": change("references", cluster=pl.col("cluster") + 1),
    "nulls, which are HDBSCAN's": change(
        "references", cluster=pl.col("cluster").replace(3, None)
    ),
    "references.profile must be numbers from 0 to 1": change(
        "references", profile=pl.lit([5.0] * 24, dtype=pl.Array(pl.Float64, 24))
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", LOST)
def test_what_lost_a_part_or_its_sense_gets_a_sentence(
    said: str, tables: dict[str, pl.DataFrame]
) -> None:
    with pytest.raises(StoreError, match=re.escape(said)):
        read_tables(written(LOST[said](tables)))


@pytest.mark.parametrize("metadata", ["{}", "[]", "no JSON", json.dumps({"format": 2})])
def test_other_formats_get_a_sentence(tables: dict[str, pl.DataFrame], metadata: str) -> None:
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(written(tables).getvalue())).write_parquet(
        buffer, metadata={METADATA_KEY: metadata}
    )
    with pytest.raises(StoreError, match="cannot be read as clusters"):
        read_tables(buffer)


def test_damaged_files_get_a_sentence(tables: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    whole = written(tables).getvalue()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-6], b"PAR1" + b"\0" * 100 + b"PAR1"):
        with pytest.raises(StoreError, match="The data cannot be read as clusters"):
            Clusters.load(io.BytesIO(damaged))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent.parquet", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(StoreError, match=f"{path} cannot be read as clusters"):
            Clusters.load(path)


def outcome(data: bytes) -> str:
    """Whether a file is refused, or holds clusters that can be used."""
    try:
        found = Clusters.load(io.BytesIO(data))
    except StoreError:
        return "refused"
    repr(found)
    assert 0 <= found.run["p"].item() <= 1
    trace = trace_of(planted(0)[0])
    if found.run["weights_sha256"].item() == trace.run["weights_sha256"].item():
        assigned = found.assign(trace)
        assert assigned["cluster"].drop_nulls().is_in(found.references["cluster"]).all()
        assert assigned["distance"].drop_nulls().is_finite().all()
    cluster_profiles(trace, found.profiles)
    cluster_criterion(trace, found)
    cluster_text(trace, found.tokens)
    return "used"


@pytest.mark.slow
def test_damaged_bytes_are_refused_or_make_sense(tables: dict[str, pl.DataFrame]) -> None:
    seen = [outcome(data) for data in damaged_bytes(written(tables).getvalue(), count=FAULTS)]
    assert "used" in seen
    assert seen.count("refused") > FAULTS / 2


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_values_without_sense_are_refused_or_make_sense(
    table: str, tables: dict[str, pl.DataFrame]
) -> None:
    seen = [
        outcome(written({**tables, table: changed}).getvalue())
        for changed in odd_cells(tables[table], count=FAULTS // 3)
    ]
    assert seen.count("refused") > FAULTS / 15


@pytest.mark.slow
def test_a_small_file_of_many_tokens_is_refused_before_it_is_read(
    tables: dict[str, pl.DataFrame],
) -> None:
    many = many_times(tables["tokens"].head(1), 17_000_000)
    data = written({**tables, "tokens": many})
    assert len(data.getvalue()) < 2**21
    with pytest.raises(StoreError, match="17,000,000 values"):
        read_tables(data)
