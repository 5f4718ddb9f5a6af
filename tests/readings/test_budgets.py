from __future__ import annotations

import dataclasses

import polars as pl

from skipviz.analysis.flops import realised_budget
from skipviz.readings.budgets import budget_reading
from skipviz.traces import Trace
from tests.synthetic import make_trace


def asked_for(trace: Trace, budget: float | None, **columns: str) -> Trace:
    values = {"budget": pl.lit(budget, pl.Float64)}
    values |= {name: pl.lit(value) for name, value in columns.items()}
    return dataclasses.replace(trace, run=trace.run.with_columns(**values))


def test_a_budget_is_missed_by_more_than_two_hundredths() -> None:
    trace = make_trace(tokens=30)
    realised = realised_budget(trace)
    for off in (-0.021, 0.021, 0.12):
        missed = asked_for(trace, realised - off)
        assert missed.budget_missed == (realised - off, realised)
        assert f"budget={realised - off:g} but {realised:.2f} realised" in repr(missed)
        said = budget_reading(missed)
        assert said is not None
        assert said[0].startswith(f"The budget on this text is {realised:.2f};")
        assert f"`skipviz calibrate synthetic --budget {realised - off:g} --text FILE`" in said[1]
    for budget in (realised - 0.019, realised + 0.02, None):
        met = asked_for(trace, budget)
        assert met.budget_missed is None
        assert "realised" not in repr(met)
        assert budget_reading(met) is None


def test_what_a_plan_decided_was_asked_for_by_no_budget() -> None:
    trace = make_trace(tokens=30, exec_count=0)
    assert trace.budget_missed is not None
    assert asked_for(trace, 0.8, policy="forced").budget_missed is None
    dense = make_trace(gated=())
    assert asked_for(dense, 0.8).budget_missed is None


def test_rates_are_missed_without_a_threshold_to_set() -> None:
    trace = make_trace(tokens=30, exec_count=0)
    fixed = dataclasses.replace(trace, sites=trace.sites.with_columns(rule=pl.lit("schedule")))
    said = budget_reading(fixed)
    assert said is not None
    assert "policy was made for" in said[0]
    assert said[1] == ""


def test_a_name_is_quoted_for_the_shell() -> None:
    trace = make_trace(exec_count=0, model="my models/a")
    said = budget_reading(trace)
    assert said is not None
    assert "calibrate 'my models/a' --budget" in said[1]
