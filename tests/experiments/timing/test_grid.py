"""A bench resumes, names its machine, and measures nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import skipviz
from skipviz.analysis.timing.bench_rows import BENCH, BENCH_FORMAT, BENCH_KEY, read_bench
from skipviz.experiments.timing import grid
from tests import encoders, tiny
from tests.folders import write_gated


@pytest.fixture
def folder(tmp_path: Path, dense_folder: Path) -> Path:
    return write_gated(tmp_path / "gated", backbone=dense_folder)


@pytest.mark.slow
def test_each_cell_has_its_rows(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.parquet"
    seen: list[float] = []
    rows = skipviz.bench(
        folder, out=out, batches=(1, 2), lengths=(8, 16), threads=(1,), rounds=2, decoded=2,
        progress=seen.append,
    )  # fmt: skip
    assert rows.schema == BENCH
    assert read_bench(out).equals(rows)
    cells = rows.select("batch", "length", "budget").unique()
    assert cells.height == 2 * 2 * 2
    assert rows.height == cells.height * 2 * 3
    assert rows["cpu"].n_unique() == 1
    assert (rows["threads"] == 1).all()
    assert seen[-1] == pytest.approx(1.0)
    assert seen == sorted(seen)
    skipping = rows.filter(pl.col("runtime") != "dense")
    assert skipping["time_over_dense"].null_count() == 0
    assert (skipping["flops_saved"] > 0).all()
    cheap = skipping.group_by("budget").agg(pl.col("flops_saved").mean()).sort("budget")
    assert cheap["flops_saved"][0] > cheap["flops_saved"][1]


def test_what_is_there_is_not_measured_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bench.parquet"
    given: dict[str, Any] = {"out": out, "budgets": (0.8,), "rounds": 1, "decoded": 1}
    first = skipviz.bench(folder, lengths=(8,), **given)
    measured: list[int] = []
    honest = grid._measured

    def counted(*arguments: Any, **more: Any) -> Any:
        measured.append(more["length"])
        return honest(*arguments, **more)

    monkeypatch.setattr(grid, "_measured", counted)
    second = skipviz.bench(folder, lengths=(8, 12), **given)
    assert measured == [12]
    assert second.head(first.height).equals(first)
    # Rows of another machine stay, and say nothing of this one.
    other = first.with_columns(cpu=pl.lit("another"))
    other.write_parquet(out, metadata={BENCH_KEY: BENCH_FORMAT})
    third = skipviz.bench(folder, lengths=(8,), **given)
    assert measured == [12, 8]
    assert set(third["cpu"]) == {"another", first["cpu"][0]}


@pytest.mark.parametrize("other", [{"rounds": 2}, {"decoded": 2}, {"text": "Other words, here."}])
def test_other_settings_are_other_cells(
    folder: Path, tmp_path: Path, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, Any]] = []
    honest = grid._measured

    def counted(*arguments: Any, **more: Any) -> Any:
        measured.append(more)
        return honest(*arguments, **more)

    monkeypatch.setattr(grid, "_measured", counted)
    given: dict[str, Any] = {"out": tmp_path / "bench.parquet", "budgets": (0.8,), "lengths": (8,),
                             "rounds": 1, "decoded": 1}  # fmt: skip
    skipviz.bench(folder, **given)
    rows = skipviz.bench(folder, **given | other)
    assert len(measured) == 2
    assert rows.height == 2 * 2 * 3
    skipviz.bench(folder, **given | other)
    assert len(measured) == 2, "the same again is the same cell"


def test_other_thresholds_of_a_budget_are_another_cell(folder: Path) -> None:
    model = skipviz.at_budget(skipviz.load(folder), 0.8)
    once = np.array([5, 6, 7])
    moved = model.under(model.family.at_thresholds(model.model, [0.123] * 8), budget=0.8)
    first, second = (grid._setting(each, "gated", once) for each in (model, moved))
    assert {name for name in first if first[name] != second[name]} == {"setup_sha256"}


def test_threads_are_as_they_were(folder: Path) -> None:
    before = torch.get_num_threads()
    rows = skipviz.bench(folder, lengths=(8,), budgets=(0.8,), threads=(2,), rounds=1, decoded=0)
    assert torch.get_num_threads() == before
    assert set(rows["threads"]) == {2}
    assert set(rows["phase"]) == {"prefill"}


def test_a_stopped_bench_keeps_what_is_done(folder: Path, tmp_path: Path) -> None:
    import threading

    out, stop = tmp_path / "bench.parquet", threading.Event()

    def progress(share: float) -> None:
        if share >= 0.5:
            stop.set()

    with pytest.raises(skipviz.Stopped):
        skipviz.bench(
            folder, out=out, lengths=(8,), budgets=(0.8, 0.6), rounds=1, decoded=0,
            progress=progress, stop=stop,
        )  # fmt: skip
    assert read_bench(out)["budget"].unique().to_list() == [0.8]


def test_a_dense_model_is_timed_alone(dense_folder: Path) -> None:
    rows = skipviz.bench(dense_folder, lengths=(8,), rounds=1, decoded=1)
    assert set(rows["runtime"]) == {"dense"}
    assert rows["time_over_dense"].null_count() == rows.height


def test_encoders_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = skipviz.from_parts(encoders.pabee(), tiny.tokenizer(), name="pabee")
    monkeypatch.setattr(grid, "load", lambda *_, **__: model)
    with pytest.raises(skipviz.InputError, match="pabee reads a text as a whole"):
        skipviz.bench("pabee", lengths=(8,), rounds=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lengths": (100_000,)}, "more than the 256"),
        ({"batches": (0,)}, "batches: 0 must be at least 1"),
        ({"rounds": 0}, "rounds=0"),
        ({"budgets": (0.3,), "lengths": (8,)}, r"0\.3"),
        ({"dtypes": ("int8",)}, "int8"),
    ],
)
def test_what_cannot_be_is_said(folder: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(skipviz.SkipvizError, match=words):
        skipviz.bench(folder, **given)


def test_a_file_of_another_kind_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(out)
    with pytest.raises(skipviz.StoreError, match="skipviz bench"):
        skipviz.bench(folder, out=out)
    assert pl.read_parquet(out).columns == ["a"]
