from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest

from skipviz.analysis.clusters.clustering import Clusters, cluster
from skipviz.analysis.clusters.storage import METADATA_KEY, TABLES, read_tables, write_tables
from tests.profiles import planted, trace_of


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


def test_files_that_lost_a_part_get_a_sentence(tables: dict[str, pl.DataFrame]) -> None:
    without = {name: table for name, table in tables.items() if name != "references"}
    with pytest.raises(ValueError, match="no table references"):
        read_tables(written(without))
    lost = {**tables, "tokens": tables["tokens"].drop("text")}
    with pytest.raises(ValueError, match="None where column text of table tokens should be String"):
        read_tables(written(lost))
    turned = {**tables, "run": tables["run"].with_columns(p=pl.lit("0.1"))}
    with pytest.raises(ValueError, match="String where column p of table run should be Float64"):
        read_tables(written(turned))
    fewer = {**tables, "sites": tables["sites"].head(3)}
    with pytest.raises(ValueError, match="of 24 sites and 3 sites, which do not go together"):
        read_tables(written(fewer))
    nothing = {**tables, "references": tables["references"].clear()}
    with pytest.raises(ValueError, match="0 reference profiles"):
        read_tables(written(nothing))
    strange = {**tables, "run": tables["run"].with_columns(on=pl.lit("colour"))}
    with pytest.raises(ValueError, match="on='colour', which is not one of executed, score"):
        read_tables(written(strange))


@pytest.mark.parametrize("metadata", ["{}", "[]", "no JSON", json.dumps({"format": 2})])
def test_other_formats_get_a_sentence(tables: dict[str, pl.DataFrame], metadata: str) -> None:
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(written(tables).getvalue())).write_parquet(
        buffer, metadata={METADATA_KEY: metadata}
    )
    with pytest.raises(ValueError, match="this version of skipviz reads format 1"):
        read_tables(buffer)


def test_damaged_files_get_a_sentence(tables: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    whole = written(tables).getvalue()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-6], b"PAR1" + b"\0" * 100 + b"PAR1"):
        with pytest.raises(ValueError, match="The data cannot be read as clusters"):
            Clusters.load(io.BytesIO(damaged))
    with pytest.raises(ValueError, match=r"absent.parquet cannot be read"):
        Clusters.load(tmp_path / "absent.parquet")
