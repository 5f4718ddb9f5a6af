from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.analysis.statistics.intervals import NOT_NEGATIVE
from skipviz.evaluation.losses import document_losses, estimate


def test_losses_are_means_over_each_document(
    dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    traced = skipviz.trace(dense, documents)
    for number, loss in enumerate(document_losses(traced)):
        rows = traced.tokens.filter(pl.col("sequence") == number)
        assert loss == pytest.approx(rows["nll"].drop_nulls().to_numpy().mean(), rel=1e-5)


def test_the_interval_covers_the_mean_and_shrinks_with_more_documents() -> None:
    losses = np.random.default_rng(0).normal(3, 1, 200)
    few, many = estimate(losses[:10], seed=0), estimate(losses, seed=0)
    assert few.low < few.mean < few.high
    # 1.96 standard errors either side, by theory
    assert many.high - many.low == pytest.approx(2 * 1.96 * losses.std() / 200**0.5, rel=0.1)
    assert many.high - many.low < few.high - few.low
    assert str(estimate(np.ones(3), seed=0)) == "1.000 [1.000, 1.000]"


@pytest.mark.parametrize("documents", [3, 5, 12, 40, 60])
def test_intervals_of_skewed_losses_cover_their_mean(documents: int) -> None:
    random = np.random.default_rng(documents)
    found = [estimate(random.lognormal(0.0, 0.5, documents), seed=0) for _ in range(2000)]
    inside = np.mean([each.low <= np.exp(0.125) <= each.high for each in found])
    # 92%, less two standard errors; Student's t alone has 91.6% with 5 documents.
    assert inside >= 0.918


def test_few_documents_reach_further_on_the_side_of_the_tail() -> None:
    even, skewed = estimate(np.array([1.0, 2, 3]), seed=0), estimate(np.array([1.0, 1, 4]), seed=0)
    assert even.high - even.mean == pytest.approx(even.mean - even.low)
    assert skewed.high - skewed.mean > 1.1 * (skewed.mean - skewed.low)


def test_documents_of_one_name_are_kept_apart(dense: skipviz.SkipModel) -> None:
    documents = [skipviz.Document("same", text) for text in ("The quick brown fox", "Why? 42.")]
    alone = [document_losses(skipviz.trace(dense, document)).item() for document in documents]
    together = document_losses(skipviz.trace(dense, documents))
    assert together.tolist() == pytest.approx(alone, rel=1e-5)


def test_an_interval_of_losses_does_not_reach_below_0() -> None:
    few = np.array([0.01, 0.02, 6.0])
    assert estimate(few).low < 0  # type: ignore[operator]
    found = estimate(few, bounds=NOT_NEGATIVE)
    assert found.low == 0.0
    assert found.high == estimate(few).high
