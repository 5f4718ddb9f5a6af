from __future__ import annotations

import numpy as np
import pytest

import skipviz
from skipviz.analysis.cost import execution_rates
from skipviz.evaluation.shuffled import shuffle_decisions
from skipviz.families.gated.modules import set_threshold


def test_figures_are_those_of_single_traces(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    seen: list[float] = []
    found = shuffle_decisions(gated, documents, seed=0, progress=seen.append)
    own = [skipviz.trace(gated, d).tokens["nll"].mean() for d in documents]
    learned = skipviz.trace(gated, documents)
    assert found.own.mean == pytest.approx(np.mean(own), abs=1e-5)
    assert found.cost.mean == pytest.approx(found.shuffled.mean - found.own.mean)
    assert found.cost.low <= found.cost.mean <= found.cost.high
    assert found.rates.equals(execution_rates(learned))
    assert seen == [0.5, 0.625, 0.75, 0.875, 1.0]


def test_the_same_seed_gives_the_same_figures(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    one, other = (shuffle_decisions(gated, documents, seed=3) for _ in range(2))
    assert (one.shuffled, one.cost) == (other.shuffled, other.cost)
    assert shuffle_decisions(gated, documents, seed=4).shuffled.mean != one.shuffled.mean


def test_shuffling_costs_nothing_where_all_tokens_decide_alike(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    set_threshold(gated.model, -1e6)
    found = shuffle_decisions(gated, documents, seed=0)
    assert found.rates["rate"].to_list() == [1.0] * 8
    assert found.cost.mean == pytest.approx(0, abs=1e-6)
