from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

import skipviz
from skipviz.analysis.statistics.intervals import clustered_error, student_margin
from skipviz.analysis.tokens.classes import kinds_of_texts
from skipviz.corpus.questions.means import contrast, corpus_means, corpus_rates, site_rates
from skipviz.corpus.reading import dataset
from skipviz.corpus.reading.dataset import CorpusDataset
from tests.corpus.asked import made_parts, tokens_of, write_corpus
from tests.synthetic import make_trace

PARTS = made_parts()
COLUMNS = [{"domain": ("law", "press", None)[n % 3], "label": n % 2} for n in range(12)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusDataset:
    return write_corpus(tmp_path_factory.mktemp("c") / "corpus", PARTS, columns=COLUMNS)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    own = pl.DataFrame({"document": range(12), **pl.DataFrame(COLUMNS).to_dict()})
    found = tokens_of(PARTS).join(
        own.with_columns(pl.col("document").cast(pl.Int64)), on="document"
    )
    return found.with_columns(kind=kinds_of_texts(found["text"]))


def naive(part: pl.DataFrame, value: str) -> tuple[float, ...]:
    known = part.drop_nulls(value)
    values, document = known[value].to_numpy().astype(np.float64), known["document"].to_numpy()
    margin = student_margin(clustered_error(values, document), len(np.unique(document)))
    mean = values.mean()
    most = 1.0 if "." in value else np.inf
    ends = (max(0.0, mean - margin), min(most, mean + margin))
    return (len(np.unique(document)), len(values), mean, *ends)


@pytest.mark.parametrize("by", [None, "domain", "kind", ("kind", "domain")])
@pytest.mark.parametrize("step", [4_000_000, 150])
def test_means_and_intervals_are_those_of_all_tokens_at_once(
    by: str | tuple[str, ...] | None, step: int, corpus: CorpusDataset, rows: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(dataset, "STEP_TOKENS", step)
    names = [by] if isinstance(by, str) else list(by or ())
    values = ["layers_used", "surprisal", "L1.mlp"]
    told: list[float] = []
    found = corpus_means(corpus, values, by=by, progress=told.append)
    assert told[-1] == 1.0
    groups = rows.partition_by(names, as_dict=True) if names else {(): rows}
    assert found.height == len(groups) * len(values)
    for row in found.iter_rows(named=True):
        part = groups[tuple(row[name] for name in names)]
        expected = naive(part, row["value"])
        figures = tuple(row[name] for name in ("documents", "tokens", "mean", "low", "high"))
        assert figures == pytest.approx(expected, rel=1e-6)


def test_rates_have_a_row_per_site_and_a_column_of_that_name(
    corpus: CorpusDataset, rows: pl.DataFrame
) -> None:
    found = corpus_rates(corpus, by="label")
    assert found.columns[:3] == ["user.label", "label", "layer"]
    assert found["label"].to_list() == corpus.labels * 2
    row = found.filter(pl.col("user.label") == 1, label="L2.attn").row(0, named=True)
    assert row["rate"] == pytest.approx(rows.filter(label=1)["L2.attn"].mean())
    assert (found["low"] >= 0).all()
    assert (found["high"] <= 1).all()
    besides = corpus_means(corpus, ["nll", *corpus.labels], by="label")
    assert site_rates(corpus, besides, by="label").equals(found)


def test_two_groups_of_documents_are_contrasted(corpus: CorpusDataset, rows: pl.DataFrame) -> None:
    found = contrast(corpus, ["layers_used", "nll"], column="label", groups=(1, 0))
    sides = [
        corpus_means(corpus, ["nll"], by="label").filter(pl.col("user.label") == n) for n in (1, 0)
    ]
    row = found.filter(value="nll").row(0, named=True)
    assert row["difference"] == pytest.approx(sides[0]["mean"][0] - sides[1]["mean"][0])
    # Welch's test of two sets of six documents, whose means have these errors.
    said = stats.ttest_ind_from_stats(
        sides[0]["mean"][0], sides[0]["error"][0] * 6**0.5, 6,
        sides[1]["mean"][0], sides[1]["error"][0] * 6**0.5, 6, equal_var=False,
    )  # fmt: skip
    assert row["p"] == pytest.approx(said.pvalue)
    assert row["low"] == pytest.approx(
        said_low := row["difference"] - (row["high"] - row["difference"])
    )
    assert said_low < row["difference"]
    assert found["q"].null_count() == 0


def test_a_single_document_has_a_mean_and_no_interval(corpus: CorpusDataset) -> None:
    found = corpus_means(corpus, ["nll"], by="document")
    assert found["document"].to_list() == list(range(12))
    assert found["mean"].null_count() == 0
    assert found.select("low", "high", "error").null_count().row(0) == (12, 12, 12)


def test_what_there_is_no_mean_of_is_said(corpus: CorpusDataset) -> None:
    with pytest.raises(
        skipviz.InputError, match="Tokens cannot be grouped by 'topic'; choose of domain"
    ):
        corpus_means(corpus, by="topic")
    with pytest.raises(
        skipviz.InputError, match="There is no mean of 'text'; there are layers_used"
    ):
        corpus_means(corpus, ["text"])
    with pytest.raises(skipviz.InputError, match="is named twice"):
        corpus_means(corpus, by=("kind", "kind"))
    with pytest.raises(skipviz.InputError, match="domain has no value 'sport'; it has None, law"):
        contrast(corpus, ["nll"], column="domain", groups=("law", "sport"))
    with pytest.raises(skipviz.InputError, match="take a column of documents"):
        contrast(corpus, ["nll"], column="kind", groups=("digits", "symbols"))


def test_a_column_called_kind_is_not_the_kind_of_a_token(tmp_path: Path) -> None:
    given = [{"kind": "essay" if n % 2 else "verse"} for n in range(12)]
    corpus = write_corpus(tmp_path / "corpus", PARTS, columns=given)
    found = corpus_means(corpus, ["nll"], by="user.kind")
    assert found["user.kind"].to_list() == ["essay", "verse"]
    assert found["documents"].to_list() == [6, 6]
    assert "essay" not in corpus_means(corpus, ["nll"], by="kind")["kind"]


def test_sites_that_never_vary_are_contrasted(tmp_path: Path) -> None:
    parts = []
    for always in (0, 1):
        made = made_parts(1)[0]
        matrices = {name: matrix.copy() for name, matrix in made.matrices.items()}
        matrices["score"][:, 0], matrices["threshold"][:, 0] = always, 0.5
        matrices["exec_count"][:, 0] = always
        parts.append(
            skipviz.Trace(run=made.run, sites=made.sites, tokens=made.tokens, matrices=matrices)
        )
    given = [{"right": n < 4} for n in range(8)]
    corpus = write_corpus(tmp_path / "corpus", parts, columns=given)
    row = contrast(corpus, corpus.labels[:1], column="right", groups=(False, True)).row(
        0, named=True
    )
    assert (row["difference"], row["low"], row["high"], row["p"]) == (1.0, 1.0, 1.0, 0.0)


def test_no_interval_reaches_what_its_quantity_cannot_be(tmp_path: Path) -> None:
    executed = np.ones((90, 8), dtype=np.uint8)
    executed[:30] = 0
    traced = make_trace(tokens=90, sequences=3, exec_count=executed)
    far = pl.when(pl.col("sequence") == 0).then(8.0).otherwise(0.01).cast(pl.Float32)
    known = pl.col("nll").is_not_null()
    tokens = traced.tokens.with_columns(
        nll=pl.when(known).then(far), entropy=pl.when(pl.col("entropy").is_not_null()).then(far)
    )
    made = skipviz.Trace(
        run=traced.run, sites=traced.sites, tokens=tokens, matrices=traced.matrices
    )
    corpus = write_corpus(tmp_path / "few", [made])
    table = corpus_means(corpus, ["layers_used", "nll", "surprisal", "entropy", "L1.mlp"])
    assert table.filter(value="nll")["low"].item() == 0.0
    assert table.filter(value="entropy")["low"].item() == 0.0
    assert (table["low"] >= 0).all()
    rate = table.filter(value="L1.mlp").row(0, named=True)
    assert (rate["low"], rate["high"]) == (0.0, 1.0)
    assert rate["mean"] == pytest.approx(2 / 3)
