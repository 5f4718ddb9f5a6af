from __future__ import annotations

from pathlib import Path

import pytest

import skipviz
from skipviz.corpus.questions.means import corpus_rates
from tests.corpus.asked import made_parts, write_corpus
from tests.corpus.test_object_store import bucket

__all__ = ["bucket"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("default")
def test_a_dataset_in_an_object_store_is_asked(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # which Polars asks for
    local = write_corpus(tmp_path / "local", made_parts(2))
    s3fs.S3FileSystem().put(str(tmp_path / "local"), f"{bucket}/mine", recursive=True)
    corpus = skipviz.open_corpus(f"{bucket}/mine")
    assert corpus.tokens().collect().equals(local.tokens().collect())
    assert corpus_rates(corpus, by="kind").equals(corpus_rates(local, by="kind"))
    assert corpus.trace(5).tokens.equals(local.trace(5).tokens)
    assert corpus.damaged() == {}
