"""A store of figures that is damaged is never used."""

from __future__ import annotations

import io
import os
from pathlib import Path

import polars as pl
import pytest
import torch

import skipviz
from skipviz.errors import StoreError
from skipviz.evaluation.frontier import frontier, measure
from skipviz.evaluation.measured_store import MEASURED_COLUMNS, read_measured, write_measured
from skipviz.folders import samples_folder
from tests.damage import damaged_bytes, many_times, odd_cells

FAULTS = 150


@pytest.fixture
def store(dense: skipviz.SkipModel, documents: list[skipviz.Document], tmp_path: Path) -> Path:
    measure([], dense, documents, store=tmp_path / "measured.parquet")
    return tmp_path / "measured.parquet"


def outcome(store: Path) -> str:
    """Whether a store is refused, or gives figures that can be used."""
    try:
        found = read_measured(store)
    except StoreError as error:
        whole = str(store) in str(error) and str(error).endswith(".")
        return "refused" if whole else "refused without a sentence"
    for figures in found.values():
        assert 0 <= figures["nll"] < 1e10
        assert 0 <= figures["top1"] <= 1
    return "used"


def test_damaged_bytes_are_refused_or_make_sense(store: Path) -> None:
    seen = []
    for data in damaged_bytes(store.read_bytes(), count=FAULTS):
        store.write_bytes(data)
        seen.append(outcome(store))
    assert set(seen) == {"refused", "used"}
    assert seen.count("refused") > FAULTS / 2


def test_values_without_sense_are_refused(store: Path) -> None:
    seen = []
    for changed in odd_cells(pl.read_parquet(store), count=FAULTS):
        changed.write_parquet(store)
        seen.append(outcome(store))
    assert set(seen) == {"refused", "used"}
    assert seen.count("refused") > FAULTS / 2


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pl.lit(float("nan")).alias("nll"), "figures.nll is nan"),
        (pl.lit(-1.0).alias("nll"), "figures.nll is -1.0"),
        (pl.lit(1.5).alias("top1"), "figures.top1 is 1.5"),
        (pl.lit(None, dtype=pl.String).alias("model"), "figures.model has no value"),
        (pl.lit("abc").alias("text_sha256"), "text_sha256 is not a SHA-256"),
        (pl.col("flop_share") * 2, "do not add up"),
        (pl.lit("1").alias("nll"), "figures.nll is String and must be Float64"),
        (pl.lit(1).alias("mine"), "column 'mine'"),
        (pl.col("text_sha256").first(), "stand there twice"),
    ],
)
def test_what_makes_no_sense_is_named(store: Path, column: pl.Expr, said: str) -> None:
    pl.read_parquet(store).with_columns(column).write_parquet(store)
    with pytest.raises(StoreError, match=said):
        read_measured(store)


def test_what_is_no_store_is_refused_and_stays(
    dense: skipviz.SkipModel, documents: list[skipviz.Document], tmp_path: Path
) -> None:
    words, pipe = tmp_path / "store", tmp_path / "pipe"
    words.write_text("words")
    os.mkfifo(pipe)
    for path in (words, pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(StoreError, match="cannot be read as a store of figures"):
            measure([], dense, documents, store=path)
    with pytest.raises(StoreError, match="There is no folder"):
        measure([], dense, documents, store=tmp_path / "none" / "store")
    assert words.read_text() == "words"
    older = pl.read_parquet(samples_folder() / "measured.parquet").drop("setup_sha256")
    older.write_parquet(words)
    with pytest.raises(StoreError, match="lacks the column 'setup_sha256'"):
        read_measured(words)


@pytest.mark.slow
def test_a_small_file_of_many_rows_is_refused_before_it_is_read(store: Path) -> None:
    row = pl.DataFrame({name: [None] for name in MEASURED_COLUMNS}, schema=MEASURED_COLUMNS)
    many_times(row, 11_000_000).write_parquet(store)
    assert store.stat().st_size < 2**21
    with pytest.raises(StoreError, match="11,000,000 rows"):
        read_measured(store)


def test_the_store_of_the_samples_is_whole(tmp_path: Path) -> None:
    sample = samples_folder() / "measured.parquet"
    found = read_measured(sample)
    assert len(found) > 1000
    write_measured(tmp_path / "copy", found)
    assert pl.read_parquet(tmp_path / "copy").equals(pl.read_parquet(sample))


def test_a_figure_that_is_not_a_number_is_never_kept(
    dense: skipviz.SkipModel, documents: list[skipviz.Document], tmp_path: Path
) -> None:
    with torch.no_grad():
        dense.model.lm_head.weight[5] = torch.nan
    store = tmp_path / "measured.parquet"
    with pytest.raises(skipviz.RecordingError, match=r"gives a nll on doc\d that is NaN"):
        measure([], dense, documents, store=store)
    assert not store.exists()


def test_figures_of_a_store_make_a_frontier(
    dense: skipviz.SkipModel, documents: list[skipviz.Document], store: Path
) -> None:
    again = measure([], dense, documents, store=store)
    first, second = io.BytesIO(), io.BytesIO()
    frontier(again).write_csv(first)
    frontier(measure([], dense, documents)).write_csv(second)
    assert first.getvalue() == second.getvalue()
