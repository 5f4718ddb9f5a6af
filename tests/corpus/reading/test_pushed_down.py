"""A question reads the columns and the parts that it needs, and no byte of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

import skipviz
from skipviz.corpus.questions.means import corpus_means, corpus_rates
from skipviz.corpus.reading.dataset import CorpusDataset
from tests.corpus.asked import made_parts, write_corpus

COLUMNS = [{"domain": "law" if n % 2 else "press"} for n in range(12)]


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusDataset:
    return write_corpus(tmp_path / "corpus", made_parts(), columns=COLUMNS)


def blank(path: Path, needed: Callable[[str], bool]) -> int:
    """Overwrite the columns of a file that are not needed; return how many bytes that are."""
    data = bytearray(path.read_bytes())
    blanked = 0
    about = pq.read_metadata(path)
    for group in range(about.num_row_groups):
        for place in range(about.num_columns):
            column = about.row_group(group).column(place)
            if needed(column.path_in_schema):
                continue
            first = column.dictionary_page_offset or column.data_page_offset
            size = column.total_compressed_size
            data[first : first + size] = bytes(size)
            blanked += size
    path.write_bytes(data)
    return blanked


def parts(corpus: CorpusDataset) -> list[Path]:
    return [Path(corpus.where) / "tokens" / f"{name}.parquet" for name in corpus.parts]


def test_what_is_overwritten_cannot_be_read(corpus: CorpusDataset) -> None:
    assert blank(parts(corpus)[0], lambda name: name != "L1.mlp") > 0
    with pytest.raises(skipviz.StoreError, match="cannot be read"):
        corpus_rates(corpus)


def test_a_document_is_read_from_its_part_alone(corpus: CorpusDataset) -> None:
    expected = corpus.trace([5, 6])
    first, _, last = parts(corpus)
    assert blank(first, lambda _: False) > 1000
    assert blank(last, lambda _: False) > 1000
    assert corpus.trace([5, 6]).tokens.equals(expected.tokens)


def test_rates_read_decisions_and_no_scores_or_texts(corpus: CorpusDataset) -> None:
    expected = corpus_rates(corpus, by="domain")
    for path in parts(corpus):
        blank(path, lambda name: name in ("document", *corpus.labels))
    assert corpus_rates(corpus, by="domain").equals(expected)


def test_a_mean_reads_its_column(corpus: CorpusDataset) -> None:
    expected = corpus_means(corpus, ["nll", "L2.mlp"])
    for path in parts(corpus):
        blank(path, lambda name: name in ("document", "nll", "L2.mlp"))
    assert corpus_means(corpus, ["nll", "L2.mlp"]).equals(expected)


def test_the_long_table_reads_its_sites_and_the_parts_of_a_filter(corpus: CorpusDataset) -> None:
    def asked() -> pl.DataFrame:
        wanted = pl.col("document").is_between(4, 6)
        return corpus.collect(corpus.decisions(["L2.mlp"]).filter(wanted))

    expected = asked()
    first, middle, last = parts(corpus)
    needed = ("document", "position", "L2.mlp", "L2.mlp.score")
    blank(first, lambda _: False)
    blank(last, lambda _: False)
    blank(middle, lambda name: name in needed)
    assert asked().equals(expected)
