from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

import skipviz
from skipviz.analysis.cost import execution_rates, realised_budget
from skipviz.experiments.calibrate import calibrate
from skipviz.experiments.card import results_table
from skipviz.experiments.evaluate import document_losses, estimate, evaluate
from skipviz.families.gated_modules import set_threshold
from skipviz.models.samples import GatedModelConfig
from tests import tiny

TEXTS = (tiny.TEXT, tiny.TEXT[20:], "Why? Nobody knows: 42.", "The lazy dog sleeps, then jumps.")


@pytest.fixture
def documents() -> list[skipviz.Document]:
    return [skipviz.Document(f"doc{index}", text) for index, text in enumerate(TEXTS)]


def test_figures_are_those_of_single_traces(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    found = evaluate(gated, dense, documents, seed=0)
    gated_loss = [skipviz.trace(gated, d).tokens["nll"].mean() for d in documents]
    dense_loss = [skipviz.trace(dense, d).tokens["nll"].mean() for d in documents]
    learned = skipviz.trace(gated, documents)
    assert (found.documents, found.tokens) == (4, len(learned))
    assert found.gated.mean == pytest.approx(np.mean(gated_loss), abs=1e-5)
    assert found.dense.mean == pytest.approx(np.mean(dense_loss), abs=1e-5)
    assert found.gap.mean == pytest.approx(found.gated.mean - found.dense.mean)
    assert found.shuffle_cost.mean == pytest.approx(found.shuffled.mean - found.gated.mean)
    assert found.gap.low <= found.gap.mean <= found.gap.high
    assert found.budget == realised_budget(learned)
    assert found.rates.equals(execution_rates(learned))


def test_further_budgets_are_measured_too(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    settings = GatedModelConfig(
        backbone="tiny",
        backbone_sha256="",
        gates_sha256="",
        gates=tiny.GATES,
        thresholds={"0.7": 0.5, "0.95": -1e6, "0.4": 1e6},
        budget="0.7",
    )
    set_threshold(gated.model, 0.5)
    model = dataclasses.replace(gated, settings=settings, budget=0.7)
    found = evaluate(model, dense, documents, seed=0)
    assert list(found.elsewhere) == ["0.95", "0.4"]
    realised, gap = found.elsewhere["0.95"]
    assert realised > 1  # everything runs, and the gates cost
    assert gap.mean == pytest.approx(0, abs=1e-6)
    realised, gap = found.elsewhere["0.4"]
    assert realised < found.budget
    set_threshold(gated.model, 1e6)
    lowest = document_losses(skipviz.trace(gated, documents))
    assert gap.mean == pytest.approx(
        np.mean(lowest - document_losses(skipviz.trace(dense, documents))), abs=1e-6
    )
    assert "gated minus dense at budget 0.4 (realised" in results_table(found)


def test_the_same_seed_gives_the_same_figures(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    one, other = (evaluate(gated, dense, documents, seed=3) for _ in range(2))
    assert (one.shuffled, one.gap) == (other.shuffled, other.gap)
    assert evaluate(gated, dense, documents, seed=4).shuffled.mean != one.shuffled.mean


def test_shuffling_costs_nothing_where_all_tokens_decide_alike(
    gated: skipviz.SkipModel, dense: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    set_threshold(gated.model, -1e6)
    found = evaluate(gated, dense, documents, seed=0)
    assert found.rates["rate"].to_list() == [1.0] * 8
    assert found.shuffle_cost.mean == pytest.approx(0, abs=1e-6)
    assert found.gap.mean == pytest.approx(0, abs=1e-6)


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


def test_calibration_realises_the_budget(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    set_threshold(gated.model, 0.4)
    aim = realised_budget(skipviz.trace(gated, documents))
    threshold = calibrate(gated, documents, budget=aim, tolerance=0.02, attempts=20)
    assert realised_budget(skipviz.trace(gated, documents)) == pytest.approx(aim, abs=0.02)
    for unit in gated.model.modules():
        if hasattr(unit, "threshold"):
            assert float(unit.threshold) == pytest.approx(threshold)


def test_a_budget_out_of_reach_is_a_sentence(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    with pytest.raises(ValueError, match="is out of reach"):
        calibrate(gated, documents, budget=0.01)
