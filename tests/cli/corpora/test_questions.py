"""The commands that ask a corpus: show, rates, compare."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import skipviz
from skipviz.corpus.reading.stored_clusters import stored_clusters
from tests.cli.runner import run, sentence
from tests.corpus.asked import made_parts, write_corpus

COLUMNS = [{"domain": "=law" if n % 2 else "press"} for n in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus", made_parts(), columns=COLUMNS)
    return tmp_path / "corpus"


def test_what_a_corpus_holds_is_shown(folder: Path, tmp_path: Path) -> None:
    done = run("corpus", "show", folder, "--csv", tmp_path / "means.csv")
    assert done.exit_code == 0, done.output
    assert "12 documents, 360 tokens, 1,440 decisions of 4 sites." in done.stdout
    assert "Columns of your own: domain." in done.stdout
    assert "the others in nats per token" in done.stdout
    used = pl.read_csv(tmp_path / "means.csv").filter(value="layers_used")["mean"].item()
    assert f"{used:.3f}" in done.stdout
    write_corpus(tmp_path / "open", made_parts(), finished=False)
    assert "The run has not ended" in run("corpus", "show", tmp_path / "open").stdout


def test_rates_by_columns_are_shown_and_written(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "rates.csv"
    done = run("corpus", "rates", folder, "--by", "domain", "--by", "kind", "--csv", table)
    assert done.exit_code == 0, done.output
    found = pl.read_csv(table)
    assert found.columns[:3] == ["domain", "kind", "label"]
    assert found["domain"].unique().sort().to_list() == ['"=law"', '"press"']
    row = found.filter(label="L1.mlp", kind="symbols", domain='"press"')
    assert f"{row['rate'].item():.3f}" in done.stdout
    said = sentence(run("corpus", "rates", folder, "--by", "topic"))
    assert "Tokens cannot be grouped by 'topic'; choose of domain, kind, phase" in said


def test_clusters_are_stored_for_all_tokens(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "shares.csv"
    done = run("corpus", "cluster", folder, "--clusters", "2", "--tokens", "60", "--csv", table)
    assert done.exit_code == 0, done.output
    assert "stored for all 360 tokens" in done.stdout
    assert pl.read_csv(table)["share"].sum() == pytest.approx(1)
    found = stored_clusters(skipviz.open_corpus(folder))
    assert found is not None
    assert found.count == 2


def test_two_corpora_are_compared(folder: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "other", made_parts(2))
    table = tmp_path / "both.csv"
    done = run("corpus", "compare", folder, tmp_path / "other", "--csv", table)
    assert done.exit_code == 0, done.output
    assert "8 documents are in both, 8 of them with the same tokens; 4 are only in" in done.stdout
    assert "On average 0.0% of a document's decisions differ." in done.stdout
    assert pl.read_csv(table).height == 8


def test_what_is_no_corpus_is_said(tmp_path: Path) -> None:
    for words in (("show",), ("rates",), ("compare", tmp_path)):
        assert "is not a corpus: it has no corpus.json" in sentence(run("corpus", *words, tmp_path))


def test_a_corpus_without_gates_has_no_rates(dense: skipviz.SkipModel, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A fox.")
    skipviz.trace_corpus(dense, tmp_path / "a.txt", out=tmp_path / "dense")
    assert "The corpus has no sites" in sentence(run("corpus", "rates", tmp_path / "dense"))
    assert "of 0 sites" in run("corpus", "show", tmp_path / "dense").stdout
