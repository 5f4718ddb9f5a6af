from __future__ import annotations

import polars as pl

from skipviz.app.one_text import unfit
from skipviz.traces import Trace
from tests.synthetic import make_trace


def test_what_a_trace_says_of_its_model_is_no_markdown() -> None:
    made = make_trace(model="[m](x)")
    run = made.run.with_columns(family=pl.lit("[f](x)"))
    blocks = made.sites.with_columns(unit=pl.lit("block"))
    said = unfit(Trace(run=run, sites=blocks, tokens=made.tokens, matrices=made.matrices))
    assert said is not None
    assert r"\[m\](x)" in said
    assert r"(family \[f\](x))" in said


def test_any_family_of_gates_on_single_units_can_be_examined() -> None:
    made = make_trace(tokens=6)
    for family in ("gated", "fixed", "somebody's own"):
        run = made.run.with_columns(family=pl.lit(family))
        said = unfit(Trace(run=run, sites=made.sites, tokens=made.tokens, matrices=made.matrices))
        assert said is None, said


def test_a_trace_without_contexts_is_not_said_to_be_of_several_windows() -> None:
    made = make_trace(tokens=6)
    tokens = made.tokens.with_columns(context=pl.lit(None, dtype=pl.Int64))
    said = unfit(Trace(run=made.run, sites=made.sites, tokens=tokens, matrices=made.matrices))
    assert "does not say how many tokens" in str(said)
