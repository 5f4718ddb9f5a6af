from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.corpus.reading.as_trace import trace_of_rows
from skipviz.schema import TOKENS
from tests.corpus.asked import made_parts, tokens_of, two_clusters, write_corpus

KEPT = [name for name in TOKENS if not name.startswith("top_")]


def test_a_document_comes_back_as_the_trace_it_was(tmp_path: Path) -> None:
    parts = made_parts()
    corpus = write_corpus(tmp_path / "corpus", parts)
    assert (len(corpus), corpus.document_count, corpus.complete) == (360, 12, True)
    whole = corpus.trace(range(4))
    original = parts[0]
    known = whole.tokens.with_columns(source=original.tokens["source"])
    assert known.select(KEPT).equals(original.tokens.select(KEPT))
    assert whole.sites.equals(original.sites)
    assert whole.run.equals(original.run)
    assert np.array_equal(whole.matrix("exec_count"), original.matrix("exec_count"))
    assert np.array_equal(whole.matrix("threshold"), original.matrix("threshold"))
    assert np.allclose(whole.matrix("score"), original.matrix("score"), rtol=2**-10)
    one = corpus.trace(5)
    assert one.tokens["source"].unique().to_list() == ["text 5"]
    assert np.array_equal(
        one.matrix("exec_count"),
        parts[1].matrix("exec_count")[(parts[1].tokens["sequence"] == 1).to_numpy()],
    )


def test_a_rounded_score_never_contradicts_its_decision(tmp_path: Path) -> None:
    made = made_parts(1)[0]
    threshold = np.full_like(made.matrix("threshold"), 0.7003)
    ran = made.matrix("exec_count") > 0
    score = np.where(ran, np.nextafter(threshold, np.float32(9)), threshold).astype(np.float32)
    near = skipviz.Trace(
        run=made.run, sites=made.sites, tokens=made.tokens,
        matrices={**made.matrices, "score": score, "threshold": threshold},
    )  # fmt: skip
    corpus = write_corpus(tmp_path / "corpus", [near])
    back = corpus.trace(range(4))
    assert np.array_equal(back.matrix("score") > back.matrix("threshold"), ran)
    back.save(tmp_path / "trace.parquet")
    assert skipviz.Trace.load(tmp_path / "trace.parquet").tokens.equals(back.tokens)


def test_a_rounded_score_is_below_a_threshold_at_which_a_unit_runs(tmp_path: Path) -> None:
    made = made_parts(1)[0]
    threshold = np.full_like(made.matrix("threshold"), 0.5)
    ran = made.matrix("exec_count") > 0
    score = np.where(ran, threshold, np.nextafter(threshold, np.float32(0))).astype(np.float32)
    near = skipviz.Trace(
        run=made.run, sites=made.sites.with_columns(rule=pl.lit("ge")), tokens=made.tokens,
        matrices={**made.matrices, "score": score, "threshold": threshold},
    )  # fmt: skip
    back = write_corpus(tmp_path / "corpus", [near]).trace(range(4))
    assert np.array_equal(back.matrix("score") >= back.matrix("threshold"), ran)


def test_a_folder_whose_name_looks_like_a_pattern_opens(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus[1]*", made_parts(1), columns=[{"n": 1}] * 4)
    assert corpus.collect(corpus.tokens()).height == len(corpus) == 120
    assert corpus.trace(np.int64(2)).tokens["source"].unique().to_list() == ["text 2"]
    assert corpus.columns == ["n"]


def test_the_long_table_is_made_while_it_is_read(tmp_path: Path) -> None:
    parts = made_parts()
    corpus = write_corpus(tmp_path / "corpus", parts)
    found = corpus.decisions(["L2.mlp"]).filter(pl.col("document") == 6).collect()
    expected = tokens_of(parts).filter(document=6)
    assert found["executed"].to_list() == expected["L2.mlp"].to_list()
    assert found["position"].to_list() == expected["position"].to_list()
    assert corpus.decisions().collect().height == 360 * 4
    plan = corpus.decisions(["L2.mlp"]).explain()
    assert "L1.attn" not in plan
    assert "PROJECT 4/" in plan


def test_a_corpus_that_is_not_finished_opens(tmp_path: Path) -> None:
    given = [{"domain": "law" if n % 2 else "press", "n": n, "source": "x"} for n in range(12)]
    done = write_corpus(tmp_path / "done", made_parts(), columns=given)
    corpus = write_corpus(tmp_path / "open", made_parts(), columns=given, finished=False)
    (tmp_path / "open" / "tokens" / f"000009-{'0' * 16}.parquet").write_bytes(b"half")
    assert (corpus.complete, done.complete) == (False, True)
    again = skipviz.open_corpus(tmp_path / "open")
    assert again.documents().collect().equals(done.documents().collect())
    assert again.tokens().collect().equals(done.tokens().collect())
    assert "not finished" in repr(again)
    assert done.columns == ["domain", "n", "user.source"]


def test_a_sample_is_whole_documents_and_says_how_many(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", made_parts())
    drawn = corpus.sample(tokens=100, seed=3)
    assert len(drawn.trace) == 120
    assert drawn.sentence == "4 of 12 documents drawn at random (seed 3), 120 tokens"
    assert np.array_equal(drawn.documents, corpus.sample(tokens=100, seed=3).documents)
    assert not np.array_equal(drawn.documents, corpus.sample(tokens=100, seed=4).documents)
    assert len(corpus.sample(tokens=10**6).trace) == 360
    assert two_clusters().assign(drawn.trace).height == 120


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(skipviz.StoreError, match=r"is not a corpus: it has no corpus\.json"):
        skipviz.open_corpus(tmp_path / "none")
    corpus = write_corpus(tmp_path / "corpus", made_parts())
    with pytest.raises(skipviz.InputError, match="There is no document 12; they are numbered"):
        corpus.trace(12)
    with pytest.raises(skipviz.InputError, match=r"There is no site 'L9'; there are L1\.attn"):
        corpus.decisions(["L9"])
    with pytest.raises(skipviz.InputError, match="has no table 'audit'; it has none"):
        corpus.further("audit")
    path = tmp_path / "corpus" / "tokens" / f"000001-{'0' * 16}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(skipviz.StoreError, match="cannot be read as a corpus"):
        corpus.trace(5)
    path.unlink()
    with pytest.raises(skipviz.StoreError, match=r"lacks tokens/000001-0+\.parquet"):
        skipviz.open_corpus(tmp_path / "corpus")
    text = (tmp_path / "corpus" / "corpus.json").read_text()
    for old, new in (
        ('"sites"', '"places"'),
        ('"L1.mlp"', '"document"'),
        ('"layers": 6', '"layers": 1'),
    ):
        assert old in text
        (tmp_path / "corpus" / "corpus.json").write_text(text.replace(old, new))
        with pytest.raises(skipviz.StoreError, match="cannot be read as a corpus"):
            skipviz.open_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "corpus.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(skipviz.StoreError, match="has corpus format 2; this version"):
        skipviz.open_corpus(tmp_path / "corpus")


def test_rows_in_any_order_are_sorted(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", made_parts(1))
    rows = corpus.tokens().collect()
    sources = corpus.documents().collect()
    made = trace_of_rows(rows, sources, run=corpus.run, sites=corpus.sites)
    assert made.tokens.equals(corpus.trace([3, 1, 0, 2, 2]).tokens)
