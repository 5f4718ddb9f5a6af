"""Saved traces and recordings become a dataset that holds what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.families.base import Plan
from tests import tiny
from tests.corpus import datasets


@pytest.fixture
def saved(gated: skipviz.SkipModel, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    skipviz.trace(gated, [tiny.TEXT, "The fox."]).save(paths[0])
    skipviz.trace(gated, "Why?").save(paths[1])
    return paths


def test_traces_become_documents(saved: list[Path], tmp_path: Path) -> None:
    summary = skipviz.import_corpus(saved, out=tmp_path / "corpus")
    assert (summary.documents, summary.parts) == (3, 2)
    datasets.is_whole(tmp_path / "corpus")
    table = datasets.tokens(tmp_path / "corpus")
    first = skipviz.Trace.load(saved[0])
    labels = first.sites["label"].to_list()
    own = table.filter(pl.col("document") < 2)
    np.testing.assert_array_equal(own.select(labels).to_numpy(), first.matrix("exec_count") > 0)
    assert own["document"].to_list() == first.tokens["sequence"].to_list()
    found = datasets.documents(tmp_path / "corpus")
    assert found["characters"].to_list() == [len(tiny.TEXT), 8, 4]
    there = datasets.contents(tmp_path / "corpus")
    assert skipviz.import_corpus(saved, out=tmp_path / "corpus") == summary
    assert datasets.contents(tmp_path / "corpus") == there


def test_a_recording_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(
        '{"kind": "recording", "format": 1, "layers": 2, '
        '"sites": [{"layer": 1, "unit": "block"}]}\n'
        '{"kind": "tokens", "text": ["a", " b"]}\n'
        '{"kind": "gate", "site": 0, "token": 0, "ran": [2, 1], "score": [null, 70000.0]}\n'
        '{"kind": "end"}\n'
    )
    skipviz.import_corpus([path], out=tmp_path / "corpus")
    table = datasets.tokens(tmp_path / "corpus")
    assert table["token_id"].to_list() == [None, None]
    assert table["nll"].to_list() == [None, None]
    assert table["L1.block"].to_list() == [True, True]
    assert table["L1.block.score"].to_list() == [None, 65504.0]
    assert table["threshold"].to_list() == [None, None]
    counts = [None if each is None else list(each) for each in table["exec_count"]]
    assert counts == [[2], None]


def test_what_does_not_belong_together_is_refused(
    saved: list[Path], gated: skipviz.SkipModel, dense: skipviz.SkipModel, tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    skipviz.trace(dense, "Why?").save(other)
    with pytest.raises(skipviz.TraceError, match=r"other.parquet is of"):
        skipviz.import_corpus([*saved, other], out=tmp_path / "corpus")
    plain = skipviz.trace(gated, "Why?")
    forced = Plan(execute=np.ones((len(plain), plain.sites.height), dtype=bool))
    made = tmp_path / "forced.parquet"
    skipviz.trace(gated, "Why?", plan=forced).save(made)
    with pytest.raises(skipviz.TraceError, match="a plan forced"):
        skipviz.import_corpus([made], out=tmp_path / "forced")
    with pytest.raises(skipviz.TraceError, match="cannot be read"):
        skipviz.import_corpus([tmp_path / "none"], out=tmp_path / "none here")
