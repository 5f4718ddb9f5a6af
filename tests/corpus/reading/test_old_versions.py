"""A dataset that the first version of the format wrote opens, and says what it said then.

``tests/data/corpus_format_1`` is of four documents, one of them empty, and the tiny gated model,
with both further tables. It is never written again: a change that it does not survive is a change
of the format, which gets a new number.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import skipviz
from skipviz.corpus.questions.cells import audited_cells
from skipviz.corpus.questions.means import corpus_rates
from skipviz.corpus.reading.dataset import CorpusDataset

STORED = Path(__file__).parents[2] / "data" / "corpus_format_1"
RATES = {
    "L1.attn": 49, "L1.mlp": 44, "L2.attn": 40, "L2.mlp": 42, "L3.attn": 25, "L3.mlp": 33,
    "L4.attn": 47, "L4.mlp": 24,
}  # fmt: skip
"""Of 76 tokens, for how many each site ran."""


@pytest.fixture(scope="module")
def corpus() -> CorpusDataset:
    return skipviz.open_corpus(STORED)


def test_it_opens_whole_and_with_its_columns(corpus: CorpusDataset) -> None:
    assert corpus.damaged() == {}
    assert (len(corpus), corpus.document_count, corpus.failed_count) == (76, 4, 1)
    documents = corpus.collect(corpus.documents())
    assert documents["domain"].to_list() == ["animals", "code", "empty", "animals"]
    assert documents["n"].to_list() == [1.0, 2.5, None, None]
    assert documents["kind"].to_list() == [None, None, None, "mine"]
    assert "empty or blank" in documents["error"][2]


def test_its_decisions_are_what_they_were(corpus: CorpusDataset) -> None:
    found = dict(corpus_rates(corpus).select("label", "rate").rows())
    assert found == pytest.approx({label: count / 76 for label, count in RATES.items()})
    last = corpus.trace(3)
    assert "".join(last.tokens["text"]) == "One more document, with 3 numbers: 4, 5."
    assert int(last.matrix("exec_count").sum()) == 156
    assert last.run["model"].item() == "tiny-gated"


def test_its_further_tables_are_read(corpus: CorpusDataset) -> None:
    audit = corpus.collect(corpus.further("audit"))
    assert audit["L4.mlp"].sum() == pytest.approx(-5.591, abs=1e-3)
    assert audit["L4.mlp"].null_count() == 3  # the last token of each document
    assert corpus.collect(corpus.further("lens"))["settled"].null_count() == 0
    sample = corpus.sample(tokens=10**6)
    assert audited_cells(corpus, sample).height == (76 - 3) * 8


def test_a_search_and_clusters_take_it(corpus: CorpusDataset) -> None:
    lines = skipviz.concordance(corpus, "fox").lines
    assert lines.select("document", "hit").rows() == [(0, "fox")]
    clusters = skipviz.cluster(corpus.sample(tokens=10**6).trace, clusters=2)
    assert (
        skipviz.concordance(corpus, "fox", clusters=clusters).lines["cluster"].is_in([0, 1]).all()
    )
    assert corpus.collect(corpus.tokens().select(pl.len())).item() == 76
