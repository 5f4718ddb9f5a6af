from __future__ import annotations

from dataclasses import replace

import polars as pl

from skipviz.analysis.flops import cost_summary
from skipviz.readings.paths import cost_reading, shallow_reading, shallowest_token
from skipviz.traces import Trace
from tests.synthetic import make_trace


def with_run(trace: Trace, **columns: object) -> Trace:
    kinds = {
        name: pl.String if isinstance(value, str) else pl.Float64 for name, value in columns.items()
    }
    run = trace.run.with_columns(
        pl.lit(value, kinds[name]).alias(name) for name, value in columns.items()
    )
    return Trace(run=run, sites=trace.sites, tokens=trace.tokens, matrices=trace.matrices)


def test_the_cost_comes_first_and_a_missed_budget_last() -> None:
    trace = make_trace(tokens=30)
    figures = cost_summary(trace)
    off = figures.budget - 0.1
    said = cost_reading(with_run(trace, budget=off), figures)
    assert said.startswith(f"Tokens used {figures.layers_mean:.1f} of 6 layers on average.")
    assert f"{figures.flop_share:.1%} of the dense model's FLOPs" in said
    assert f"**The budget on this text is {figures.budget:.2f}; the thresholds were set for" in said
    met = cost_reading(with_run(trace, budget=figures.budget + 0.01), figures)
    assert "thresholds" not in met
    none = cost_reading(with_run(trace, budget=None), figures)
    assert "thresholds" not in none


def test_a_model_without_gates_skips_nothing() -> None:
    trace = make_trace(gated=())
    assert cost_reading(trace, cost_summary(trace)) == (
        "This model has no gates: every token used all 6 layers."
    )


def test_the_token_with_the_fewest_layers_is_neither_first_nor_last() -> None:
    trace = make_trace(tokens=6)
    used = [0.0, 3.0, 2.0, 5.0, 2.0, 1.0]
    tokens = trace.tokens.with_columns(layers_used=pl.Series(used, dtype=pl.Float32))
    shown = replace(trace, tokens=tokens)
    token = shallowest_token(shown)
    assert token == 2
    assert shallow_reading(shown, token) == (
        f"Token 2, {tokens['text'][2]!r}, used 2 of {trace.run['layers'].item()} layers, the "
        "fewest of all tokens except the first and the last; the mean is 2.2."
    )
    same = replace(trace, tokens=tokens.with_columns(layers_used=pl.lit(3.0, pl.Float32)))
    assert shallow_reading(same, shallowest_token(same)) == ""
