from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import skipviz
from skipviz.analysis.flops import execution_rates
from skipviz.evaluation import shuffled as module
from skipviz.evaluation.card import shuffled_table
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
    for shuffled, cost in (
        (found.by_site, found.by_site_cost),
        (found.by_token, found.by_token_cost),
    ):
        assert cost.mean == pytest.approx(shuffled.mean - found.own.mean)
        assert cost.low <= cost.mean <= cost.high
    assert found.rates.equals(execution_rates(learned))
    assert seen == sorted(seen)
    assert seen[-4:] == pytest.approx([0.5, 2 / 3, 5 / 6, 1.0])


def test_the_same_seed_gives_the_same_figures(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    one, other = (shuffle_decisions(gated, documents, seed=3) for _ in range(2))
    assert (one.by_site, one.by_token) == (other.by_site, other.by_token)
    another = shuffle_decisions(gated, documents, seed=4)
    assert another.by_site.mean != one.by_site.mean
    assert another.by_token.mean != one.by_token.mean


def test_shuffling_costs_nothing_where_all_tokens_decide_alike(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    set_threshold(gated.model, -1e6)
    found = shuffle_decisions(gated, documents, seed=0)
    assert found.rates["rate"].to_list() == [1.0] * 8
    assert found.by_site_cost.mean == pytest.approx(0, abs=1e-6)
    assert found.by_token_cost.mean == pytest.approx(0, abs=1e-6)


def test_whole_rows_keep_the_combinations_that_the_gates_chose(
    gated: skipviz.SkipModel,
    documents: list[skipviz.Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans: list[np.ndarray] = []
    run = skipviz.trace

    def spy(*args: Any, plan: Any = None, **options: Any) -> skipviz.Trace:
        if plan is not None:
            plans.append(plan.execute)
        return run(*args, plan=plan, **options)

    monkeypatch.setattr(module, "trace", spy)
    shuffle_decisions(gated, documents, seed=0)
    for document, by_site, by_token in zip(documents, plans[::2], plans[1::2], strict=True):
        own = run(gated, document).matrix("exec_count") > 0
        assert sorted(map(tuple, by_token)) == sorted(map(tuple, own))
        assert not np.array_equal(by_token, own)
        assert sorted(map(tuple, by_site)) != sorted(map(tuple, own))
        for plan in (by_site, by_token):
            assert np.array_equal(plan.sum(axis=0), own.sum(axis=0))


def test_both_controls_are_columns_of_the_table(
    gated: skipviz.SkipModel, documents: list[skipviz.Document]
) -> None:
    found = shuffle_decisions(gated, documents, seed=0)
    header, _, losses, costs = shuffled_table(found, "0.8").splitlines()
    assert "| shuffled site by site | shuffled token by token, whole rows |" in header
    assert losses == f"| loss | {found.own} | {found.by_site} | {found.by_token} |"
    assert costs == f"| minus own |  | {found.by_site_cost} | {found.by_token_cost} |"
