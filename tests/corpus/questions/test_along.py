from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import skipviz
from skipviz.analysis.robustness.tails import tails
from skipviz.analysis.statistics.intervals import clustered_margin
from skipviz.corpus.questions.along import along_documents, corpus_tails
from skipviz.corpus.reading import dataset
from tests.corpus.asked import made_parts, tokens_of, write_corpus


def test_parts_of_documents_are_compared_with_their_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "STEP_TOKENS", 150)
    parts = made_parts()
    corpus = write_corpus(tmp_path / "c", parts)
    found = along_documents(corpus, ["layers_used", "L1.mlp"], parts=3)
    used = (
        tokens_of(parts)["layers_used"]
        .to_numpy()
        .astype(np.float64)
        .reshape(12, 3, 10)
        .mean(axis=2)
    )
    row = found.row(2, named=True)
    change = used[:, 2] - used[:, 0]
    assert (row["part"], row["documents"]) == (2, 12)
    assert row["mean"] == pytest.approx(used[:, 2].mean())
    assert row["change"] == pytest.approx(change.mean())
    margin = clustered_margin(change, np.arange(12))
    assert row["high"] - row["change"] == pytest.approx(margin)
    assert found["value"].to_list() == ["layers_used"] * 3 + ["L1.mlp"] * 3


def test_short_documents_are_left_out(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", [*made_parts(1), *made_parts(1, tokens=20)])
    assert along_documents(corpus, ["nll"])["documents"].to_list() == [4] * 10
    with pytest.raises(skipviz.InputError, match="Every document has fewer than 31 tokens"):
        along_documents(corpus, parts=31)
    with pytest.raises(skipviz.InputError, match="parts=1 must be at least 2"):
        along_documents(corpus, parts=1)


def test_tails_are_those_of_each_trace(tmp_path: Path) -> None:
    parts = made_parts()
    corpus = write_corpus(tmp_path / "c", parts, columns=[{"n": n} for n in range(12)])
    found = corpus_tails(corpus)
    assert found["n"].to_list() == list(range(12))
    figures = [name for name in tails(parts[1]).columns if name.startswith(("layers", "nll"))]
    ours, theirs = found[4:8].select(figures), tails(parts[1]).select(figures)
    assert np.allclose(ours.to_numpy(), theirs.to_numpy())
