"""Quantiles and how far depth predicts latency, on planted times."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from skipviz.analysis.timing.latency import latencies
from skipviz.analysis.timing.measured import RUNS


def decoded(seconds: object, depth: object, runtime: str = "gathered") -> pl.DataFrame:
    seconds, depth = np.asarray(seconds, dtype=float), np.asarray(depth, dtype=float)
    columns = {"round": 0, "phase": "decode", "runtime": runtime, "sequence": 0,
               "token": np.arange(len(seconds)), "tokens": 1, "layers_used": depth,
               "seconds": seconds}  # fmt: skip
    return pl.DataFrame(columns, schema=RUNS)


def test_depth_that_decides_explains_everything() -> None:
    depth = np.arange(200) % 9 + 10
    (row,) = latencies(decoded(0.004 + 0.001 * depth, depth)).to_dicts()
    assert row["by_depth"] == pytest.approx(1.0)
    assert row["seconds_per_layer"] == pytest.approx(0.001)
    assert row["unexplained"] == pytest.approx(0.0, abs=1e-9)
    assert row["slowest"] == pytest.approx(0.022)
    assert row["slowest_layers"] == 18.0
    assert row["layers"] == pytest.approx(depth.mean())


def test_depth_that_does_not_decide_explains_nothing() -> None:
    random = np.random.default_rng(0)
    depth = random.integers(5, 20, 600)
    (row,) = latencies(decoded(1 + 0.1 * random.random(600), depth)).to_dicts()
    assert row["by_depth"] < 0.02
    assert row["unexplained"] == pytest.approx(row["variation"], rel=0.02)


def test_quantiles_need_enough_times() -> None:
    for count, known in ((19, (True, False, False)), (20, (True, True, False)), (100, (True,) * 3)):
        (row,) = latencies(decoded(np.arange(1, count + 1), np.ones(count))).to_dicts()
        assert tuple(row[name] is not None for name in ("p50", "p95", "p99")) == known
        assert (row["slowest"] is not None) == (count >= 100)
        assert row["by_depth"] is None, "all of one depth"
    assert row["p99"] == np.quantile(np.arange(1, 101), 0.99)


def test_unknown_depth_stays_unknown() -> None:
    (row,) = latencies(decoded(np.arange(1, 31), np.full(30, np.nan))).to_dicts()
    assert row["layers"] is None
    assert row["by_depth"] is None
    assert row["variation"] is not None


def test_texts_are_compared_per_token() -> None:
    frame = pl.concat([decoded([1.0, 4.0], [3, 3])]).with_columns(
        phase=pl.lit("prefill"), tokens=pl.Series([10, 40])
    )
    (row,) = latencies(frame).to_dicts()
    assert row["variation"] == 0.0
    assert row["mean"] == pytest.approx(0.1)
    assert row["p50"] == 2.5
