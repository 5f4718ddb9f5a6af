from __future__ import annotations

from pathlib import Path

import pytest

from skipviz.analysis.timing.bench_rows import read_bench
from tests.cli.runner import run
from tests.folders import write_gated


@pytest.mark.slow
def test_bench_writes_rows_and_goes_on_where_it_stopped(tmp_path: Path, dense_folder: Path) -> None:
    folder = write_gated(tmp_path / "gated", backbone=dense_folder)
    out = tmp_path / "bench.parquet"
    command = ["bench", str(folder), "--out", str(out), "--budget", "0.8", "--rounds", "1",
               "--decoded", "1", "--length", "8"]  # fmt: skip
    first = run(*command, "--batch", "2")
    assert first.exit_code == 0, first.output
    assert "of the dense time (" in first.stdout
    assert "The rows are in" in first.stderr
    rows = read_bench(out)
    second = run(*command, "--batch", "2", "--batch", "1")
    assert second.exit_code == 0, second.output
    assert read_bench(out).head(rows.height).equals(rows)
    assert sorted(read_bench(out)["batch"].unique()) == [1, 2]


def test_faults_are_sentences(tmp_path: Path, dense_folder: Path) -> None:
    bad = run("bench", str(dense_folder), "--out", str(tmp_path / "no" / "x.parquet"))
    assert bad.exit_code
    assert "There is no folder" in bad.stderr
    wrong = run("bench", str(dense_folder), "--out", str(tmp_path / "x.parquet"), "--length", "0")
    assert "lengths: 0 must be at least 1" in wrong.stderr
