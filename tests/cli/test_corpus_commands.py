"""The commands of a corpus: run, import, verify."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import skipviz
from tests import tiny
from tests.cli.runner import run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    found = [{"body": tiny.TEXT, "label": "a"}, {"body": "", "label": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def test_a_corpus_is_traced_and_verified(model: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    words = ("corpus", "run", rows, "--model", model, "--out", out, "--text-column", "body")
    for _ in range(2):
        done = run(*map(str, words))
        assert done.exit_code == 0, done.output
        assert "2 documents" in done.stderr
        assert "1 of them could not be traced" in done.stderr
    assert pl.read_parquet(out / "documents.parquet")["label"].to_list() == ["a", "b"]
    assert run("corpus", "verify", str(out)).stdout == "All 2 files are as they were written.\n"
    (out / "documents.parquet").write_bytes(b"")
    broken = run("corpus", "verify", str(out))
    assert broken.exit_code == 1
    assert "documents.parquet: its checksum is another" in broken.stderr
    other = run(*map(str, words), "--runtime", "gathered")
    assert other.exit_code == 1
    assert "was begun with runtime='masked'; this is 'gathered'" in other.stderr


def test_traces_become_a_corpus(model: Path, tmp_path: Path) -> None:
    trace = skipviz.trace(skipviz.load(model), tiny.TEXT)
    trace.save(tmp_path / "a.parquet")
    done = run("corpus", "import", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "corpus"))
    assert done.exit_code == 0, done.output
    assert f"1 documents, {len(trace)} tokens" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--engine", "cloud"), "must be local or ray"),
        (("--analyses", "magic"), "analyses has 'magic'"),
    ],
)
def test_what_is_wrong_is_said(
    model: Path, rows: Path, tmp_path: Path, words: tuple[str, str], says: str
) -> None:
    given = ("corpus", "run", str(rows), "--model", str(model), "--out", str(tmp_path / "made"))
    found = run(*given, *words)
    assert found.exit_code == 1
    assert says in found.stderr
    assert run("corpus", "verify", str(tmp_path)).exit_code == 1
